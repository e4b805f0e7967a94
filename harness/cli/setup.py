"""Commands about this installation and what it offers: doctor, models, tasks, metrics, presets, config, completion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.options import (
    CONFIG,
    DEBUG,
    EVALUATED,
    JSON,
    METHOD,
    MODEL,
    PLANNING,
    SERVING,
    STRUCTURE,
    SettingsCommand,
)
from harness.cli.output import answer

_DATA = {True: "Hub", False: "none"}


@click.command("doctor")
@JSON
@DEBUG
def doctor_command(as_json: bool) -> None:
    """Show what is installed and usable here, and what to do about the rest; exit 1 if a run is impossible."""
    from harness.cli.doctor import examine
    from harness.core.errors import StorageError
    from reports.parts import Table

    found = examine()
    rows = tuple((one.what, one.verdict, one.found + (f"\n-> {one.todo}" if one.todo else "")) for one in found)
    answer([asdict(one) for one in found], as_json, Table("What is here", ("what", "", "found"), rows))
    if missing := [one.what for one in found if one.verdict == "missing"]:
        raise StorageError(f"missing for a run: {', '.join(missing)}; see above for what to do")


@click.command("presets")
@click.argument("name", required=False)
@JSON
@DEBUG
def presets_command(name: str | None, as_json: bool) -> None:
    """List the presets; with NAME print the YAML of one, to save, edit and pass to --config."""
    import yaml

    from harness.config.settings import preset_summaries, preset_text
    from reports.parts import Table

    if name:
        text = preset_text(name)
        if as_json:
            answer(yaml.safe_load(text), as_json)
        else:
            click.echo(text, nl=False)
        return
    found = preset_summaries()
    answer(found, as_json, Table("Presets", ("name", "what"), tuple(found.items())))


@click.group("config")
def config_group() -> None:
    """Settings as YAML, merged from preset, file, environment (HARNESS_RATIO=0.3) and command line; their schema."""


@config_group.command(
    "show",
    cls=SettingsCommand,
    settings=(
        *(*MODEL, *STRUCTURE, *METHOD, *PLANNING, *EVALUATED, *SERVING),
        *("recover", "arms", "recovery", "sweep", "dissociate", "goal", "preset"),
    ),
)
@CONFIG
@JSON
@DEBUG
def show_command(config_file: Path | None, preset: str | None, as_json: bool, **options: Any) -> None:
    """Print every setting with its value, as YAML to save, edit and pass to --config.

    \b
    harness config show --preset paper --model qwen-7b > run.yaml
    harness config show --config run.yaml --ratio 0.3
    """
    from harness.config.settings import config_yaml, load_config
    from harness.pipeline.resolve import name_problems

    config = load_config(config_file, options, preset, names=name_problems)
    if as_json:
        answer(config.model_dump(mode="json"), as_json)
    else:
        click.echo(config_yaml(config), nl=False)


@config_group.command("schema")
@DEBUG
def schema_command() -> None:
    """Print the JSON Schema of a config file, for editors that complete and check YAML.

    \b
    harness config schema > config.schema.json

    The first line of the YAML file names it: # yaml-language-server: $schema=config.schema.json
    """
    from harness.config.settings import config_schema

    click.echo(config_schema(), nl=False)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@DEBUG
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, models, tasks and metrics in your shell.

    \b
    eval "$(harness completion bash)"                in ~/.bashrc
    eval "$(harness completion zsh)"                 in ~/.zshrc
    harness completion fish | source                 in config.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # of the choices above
    click.echo(made(context.find_root().command, {}, "harness", "_HARNESS_COMPLETE").source())


@click.command("models")
@JSON
@DEBUG
def models_command(as_json: bool) -> None:
    """List the model aliases."""
    from harness.models.registry import ALIASES
    from reports.parts import Table

    rows = [(a.name, a.task, ", ".join(a.ids.values()) or a.summary) for a in ALIASES.values()]
    found = [{"name": name, "task": task, "model": model} for name, task, model in rows]
    answer(
        found,
        as_json,
        Table("Models", ("name", "default task", "model"), tuple(rows), "Or any local folder, or any Hub id."),
    )


@click.command("metrics")
@JSON
@DEBUG
def metrics_command(as_json: bool) -> None:
    """List the metrics that score neurons."""
    from pruning.scores import describe_metrics
    from reports.parts import Table

    rows = describe_metrics()
    found = [{"name": name, "what": what} for name, what in rows]
    answer(found, as_json, Table("Metrics", ("name", "what"), rows))


@click.command("tasks")
@click.option("--path", is_flag=True, help="Print the folder for lm-eval's --include_path.")
@JSON
@DEBUG
def tasks_command(path: bool, as_json: bool) -> None:
    """List the tasks: their metric, test items and training items, and whether they need a data set."""
    from reports.parts import Table
    from tasks.registry import TASKS_PATH

    if path:
        click.echo(json.dumps({"path": str(TASKS_PATH)}) if as_json else TASKS_PATH)
        return
    found = list(_listed_tasks())
    rows = tuple(
        (t["name"], t["metric"], f"{t['items']:,}", _count(t["training_items"]), _DATA[t["needs_data"]], t["summary"])
        for t in found
    )
    note = (
        "Neurons can be scored on all of them. recover needs training items (any: made without limit). A data set is "
        "read from HARNESS_DATA_DIR, else downloaded from the Hub. Evaluation also takes the tasks of lm-eval by name."
    )
    answer(found, as_json, Table("Tasks", ("name", "metric", "n", "train", "data", "what"), rows, note))


def _listed_tasks() -> Iterator[dict[str, Any]]:
    """Every name that --task takes, families first."""
    from tasks.registry import FAMILY_NAMES, find_task, loadable_tasks, needs_data

    families = [
        (name, find_task(name), f"{chat.removeprefix(name)} for chat models, {base.removeprefix(name)} for others")
        for name, (chat, base) in FAMILY_NAMES.items()
    ]
    for name, task, summary in (*families, *((t.name, t, t.summary) for t in loadable_tasks())):
        yield {
            "name": name,
            "metric": task.metric,
            "summary": summary,
            "items": task.items,
            "training_items": task.training.items if task.training else 0,
            "needs_data": needs_data(name),
        }


def _count(training_items: int | None) -> str:
    return "any" if training_items is None else f"{training_items:,}" if training_items else "none"

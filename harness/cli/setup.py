"""Commands about this installation and what it offers: doctor, config, completion, models, metrics, tasks."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.options import (
    ARMS,
    CONFIG,
    DEBUG,
    JSON,
    METHOD,
    MODEL,
    PLANNING,
    PRUNED_AND_EVALUATED,
    RECOVER,
    RECOVERY,
    SERVING,
    SWEEP_GRID,
    TASK,
)
from harness.cli.output import answer


@click.command("doctor")
@JSON
@DEBUG
def doctor_command(as_json: bool) -> None:
    """Say what is installed and usable here, and what to do about what is not; exit 1 where a run could not go."""
    from harness.cli.doctor import examine
    from harness.core.errors import StorageError
    from reports.parts import Table

    found = examine()
    rows = tuple((one.what, one.verdict, one.found + (f"\n-> {one.todo}" if one.todo else "")) for one in found)
    answer([asdict(one) for one in found], as_json, Table("What is here", ("what", "", "found"), rows))
    if missing := [one.what for one in found if one.verdict == "missing"]:
        raise StorageError(f"a run cannot go without: {', '.join(missing)}; see above for what to do")


@click.group("config")
def config_group() -> None:
    """Settings as YAML: what a run would take from file, environment and command line together."""


@config_group.command("show")
@MODEL
@TASK
@METHOD
@PLANNING
@PRUNED_AND_EVALUATED
@SERVING
@RECOVER
@ARMS
@RECOVERY
@SWEEP_GRID
@CONFIG
@JSON
@DEBUG
def show_command(config_file: Path | None, preset: str | None, as_json: bool, **options: Any) -> None:
    """Print every setting with its value, as YAML to save, change and give to --config.

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
    """List the tasks."""
    from reports.parts import Table
    from tasks.registry import TASKS, TASKS_PATH

    if path:
        click.echo(json.dumps({"path": str(TASKS_PATH)}) if as_json else TASKS_PATH)
        return
    rows = [(t.name, t.metric, t.summary) for t in TASKS.values()]
    found = [{"name": name, "metric": metric, "summary": summary} for name, metric, summary in rows]
    answer(found, as_json, Table("Tasks", ("name", "metric", "what"), tuple(rows)))

"""Commands about this installation: doctor, config show, completion."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from harness.options import (
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
from harness.printing import answer


@click.command("doctor")
@JSON
@DEBUG
def doctor_command(as_json: bool) -> None:
    """Say what is installed and usable here, and what to do about what is not; exit 1 where a run could not go."""
    from harness.doctor import examine
    from harness.errors import StorageError
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
    from harness.config import config_yaml, load_config
    from harness.spec import name_problems

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

"""`harness run` and `harness recover`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import (
    CONFIG,
    DEBUG,
    DRY_RUN,
    EVALUATED,
    FRESH,
    JSON,
    METHOD,
    MODEL,
    PLANNING,
    SERVING,
    STRUCTURE,
    TASK,
    SettingsCommand,
    out_option,
    typed_command,
)
from harness.cli.output import show_dry_run, show_run, stdout_to_stderr, warn_of_ratio_0
from harness.cli.restart import restart_preloaded


@click.command(
    "run",
    cls=SettingsCommand,
    settings=(*MODEL, *STRUCTURE, *METHOD, *PLANNING, "goal", *EVALUATED, *SERVING, "recover", "recovery", "preset"),
)
@CONFIG
@out_option("runs/MODEL-TASK-VARIANT")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def run_command(
    config_file: Path | None,
    preset: str | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score, prune, evaluate and time one model; write run.json and a report.

    Besides the target task its off-target tasks are evaluated, to show what pruning costs elsewhere; give --task more
    than once to choose them.

    \b
    harness run -m ./mine --ratio 0.2     this ratio
    harness run -m ./mine --max-loss 1    the smallest that loses less than a point
    harness run -m ./mine --fits 16GiB    the most accurate that fits
    harness run -m ./mine --speedup 1.6 --structure joint    widths, attention and layers together
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.core.errors import MeasurementError
    from harness.pipeline.dry_run import forecast, forecast_table
    from harness.pipeline.resolve import name_problems, resolve

    config = load_config(config_file, options, preset, names=name_problems)
    restart_preloaded(config.dtype)
    if not config.goal.given:
        warn_of_ratio_0(config)
    if dry_run:
        if config.goal.given:
            _show_search(config, out, as_json)
        else:
            show_dry_run(config, resolve, forecast, forecast_table, out, as_json)
        return
    with stdout_to_stderr():
        found = api.run(out=out or api.AUTO, fresh=fresh, config=config, command=typed_command())
    show_run(found.folder, as_json)
    if found.goal and not found.goal.found:
        write = f"`harness prune {found.folder} --variant {found.goal.nearest}` writes the nearest"
        raise MeasurementError(f"no model was found that meets {' '.join(found.goal.goal.options)}; {write}")


def _show_search(config: Any, out: Path | None, as_json: bool) -> None:
    from harness.sweeps.goal.dry_run import forecast_search, search_table
    from harness.sweeps.goal.resolve import resolve_goal
    from harness.sweeps.joint.dry_run import forecast_joint, joint_table
    from harness.sweeps.joint.resolve import resolve_joint

    if config.structure == "joint":
        show_dry_run(config, resolve_joint, forecast_joint, joint_table, out, as_json)
    else:
        show_dry_run(config, resolve_goal, forecast_search, search_table, out, as_json)


@click.command("recover", cls=SettingsCommand, settings=(*TASK, "arms", *PLANNING, *EVALUATED, "recovery", "preset"))
@click.argument("model", shell_complete=complete_models)
@CONFIG
@out_option("runs/MODEL-TASK-recovered")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def recover_command(
    model: str,
    config_file: Path | None,
    preset: str | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fine-tune MODEL, a checkpoint, and evaluate it before and after.

    \b
    harness recover runs/x/checkpoint --task gsm8k
    harness recover qwen-1.5b --arms selective,random,dense --ratio 0.3

    With --arms, MODEL is first pruned in each of these ways; dense is MODEL itself, the control that shows how much is
    due to training alone.
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.pipeline.dry_run import forecast, forecast_table
    from harness.pipeline.resolve import name_problems, resolve_recovery

    config = load_config(config_file, {**options, "model": model, "recover": True}, preset, names=name_problems)
    restart_preloaded(config.dtype)
    if config.arms:
        warn_of_ratio_0(config)
    if dry_run:
        show_dry_run(config, resolve_recovery, forecast, forecast_table, out, as_json)
        return
    with stdout_to_stderr():
        found = api.recover(out=out or api.AUTO, fresh=fresh, config=config, command=typed_command())
    show_run(found.folder, as_json)

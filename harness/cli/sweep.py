"""`harness sweep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.options import (
    CONFIG,
    DEBUG,
    DRY_RUN,
    EVALUATED,
    FRESH,
    GRID,
    JSON,
    MODEL,
    SERVING,
    SettingsCommand,
    out_option,
    typed_command,
)
from harness.cli.output import show_dry_run, show_sweep, stdout_to_stderr
from harness.cli.restart import restart_preloaded

_DEFAULT = "laptop"  # the preset of `harness sweep` alone


@click.command(
    "sweep",
    cls=SettingsCommand,
    settings=(*MODEL, "sweep", "allocation", "align", *EVALUATED, *SERVING, "recovery", "preset"),
    panels={"allocation": GRID, "align": GRID},
)
@CONFIG
@out_option("runs/sweep-MODEL-TASK")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def sweep_command(
    config_file: Path | None,
    preset: str | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Prune one model by methods x ratios x seeds and evaluate each: curves, thresholds, the paper's claims judged.

    \b
    harness sweep                                    embedded model, minutes
    harness sweep --preset paper --model qwen-1.5b   the paper's experiment
    harness sweep --preset paper -m qwen-1.5b -t humaneval
    harness sweep -m ./mine -t gsm8k --methods best,random --ratios 0.1,0.2
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.core.errors import MeasurementError
    from harness.pipeline.resolve import name_problems
    from harness.sweeps.dry_run import forecast_sweep, grid_table
    from harness.sweeps.grid import resolve_sweep

    alone = not (preset or config_file or options["model"] or {"HARNESS_MODEL", "HARNESS_PRESET"} & os.environ.keys())
    config = load_config(config_file, options, preset or (_DEFAULT if alone else None), names=name_problems)
    restart_preloaded(config.dtype)
    if dry_run:
        show_dry_run(config, resolve_sweep, forecast_sweep, grid_table, out, as_json)
        return
    with stdout_to_stderr():
        found = api.sweep(out=out or api.AUTO, fresh=fresh, config=config, command=typed_command())
    show_sweep(found.folder, as_json)
    if found.sweep and found.sweep.failed:
        raise MeasurementError(
            f"failed cells of the sweep: {len(found.sweep.failed)}, see above; run the same command again to retry them"
        )

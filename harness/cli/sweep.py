"""`harness sweep` and `harness presets`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.options import (
    CONFIG,
    DEBUG,
    DRY_RUN,
    FRESH,
    JSON,
    MODEL,
    PRUNED_AND_EVALUATED,
    RECOVERY,
    SERVING,
    SWEEP,
    TASK,
    out_option,
    typed_command,
)
from harness.cli.output import answer, show_sweep, stdout_to_stderr

_DEFAULT = "laptop"  # the preset of `harness sweep` alone


@click.command("sweep")
@MODEL
@TASK
@SWEEP
@PRUNED_AND_EVALUATED
@SERVING
@RECOVERY
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
    """Methods x ratios x seeds on one model and several tasks: curves with intervals, thresholds, and the paper's claims judged.

    \b
    harness sweep                                    embedded model, minutes
    harness sweep --preset paper --model qwen-1.5b   the paper's experiment
    harness sweep --preset paper -m qwen-1.5b -t humaneval
    harness sweep -m ./mine -t gsm8k --methods best,random --ratios 0.1,0.2
    """
    from harness.config.settings import load_config
    from harness.core.errors import MeasurementError
    from harness.pipeline.resolve import name_problems
    from harness.sweeps.experiment import sweep

    alone = not (preset or config_file or options["model"] or {"HARNESS_MODEL", "HARNESS_PRESET"} & os.environ.keys())
    config = load_config(config_file, options, preset or (_DEFAULT if alone else None), names=name_problems)
    if dry_run:
        _show_grid(config, as_json)
        return
    with stdout_to_stderr():
        found, folder = sweep(config, out, fresh, typed_command())
    show_sweep(folder, as_json)
    if found.sweep and found.sweep.failed:
        count = len(found.sweep.failed)
        raise MeasurementError(
            f"{count} of the sweep's cells failed, see above and {folder}/run.json; the same command tries them again"
        )


def _show_grid(config: Any, as_json: bool) -> None:
    from harness.models.registry import looks_like_chat
    from harness.sweeps.dry_run import forecast_sweep, grid_table
    from harness.sweeps.grid import resolve_sweep

    found = forecast_sweep(resolve_sweep(config, looks_like_chat(config.model)))
    answer(found, as_json, grid_table(found))


@click.command("presets")
@click.argument("name", required=False)
@JSON
@DEBUG
def presets_command(name: str | None, as_json: bool) -> None:
    """The presets; with NAME the YAML of one, to save, change and give to --config."""
    import yaml

    from harness.config.settings import preset_summaries, preset_text

    if name:
        text = preset_text(name)
        if as_json:
            answer(yaml.safe_load(text), as_json)
        else:
            click.echo(text, nl=False)
        return
    found = preset_summaries()
    answer(found, as_json)

"""`harness dissociate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import (
    CHAT,
    CONFIG,
    DEBUG,
    DRY_RUN,
    ENGINE,
    FRESH,
    JSON,
    TASK,
    SettingsCommand,
    out_option,
    typed_command,
)
from harness.cli.output import show_dissociation, show_dry_run, stdout_to_stderr
from harness.cli.restart import restart_preloaded
from harness.sweeps.dissociation import DISSOCIATE_DEFAULTS


@click.command(
    "dissociate",
    cls=SettingsCommand,
    settings=(
        *TASK,
        *("ratio", "dissociate", "margin", "score_tokens", "prompt_format", *CHAT, "calibration_samples"),
        *("limit", "items", "dtype", *ENGINE, "trust_data", "threads", "workers"),
    ),
    defaults=DISSOCIATE_DEFAULTS,
)
@click.argument("model", required=False, shell_complete=complete_models)
@CONFIG
@out_option("runs/dissociate-MODEL")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def dissociate_command(
    model: str | None,
    config_file: Path | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Test whether the tasks of MODEL have neurons of their own, and what else explains what their removal does.

    \b
    harness dissociate tiny-math                 the embedded model, minutes
    harness dissociate ./mine --task gsm8k,mbpp  two tasks of your own model

    Removes, scales and replaces sets of neurons in a running engine: every task's own by S, random ones that match
    them, the few largest, those by other distractors. Nothing is written but the report.
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.core.errors import MeasurementError
    from harness.pipeline.resolve import name_problems
    from harness.sweeps.dissociation.resolve import forecast, forecast_table, resolve_dissociation

    given = {**options, **({"model": model} if model else {})}
    config = load_config(config_file, given, None, DISSOCIATE_DEFAULTS, name_problems)
    restart_preloaded(config.dtype)
    if dry_run:
        show_dry_run(config, resolve_dissociation, forecast, forecast_table, out, as_json)
        return
    with stdout_to_stderr():
        found = api.dissociate(out=out or api.AUTO, fresh=fresh, config=config, command=typed_command())
    show_dissociation(found.folder, as_json)
    if found.dissociation and found.dissociation.failed:
        raise MeasurementError(
            f"failed interventions: {len(found.dissociation.failed)}, see above; the same command tries them again"
        )

"""What a run needs besides its model is checked by every dry run too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import MeasurementError
from harness.pipeline.dry_run import forecast
from harness.pipeline.resolve import resolve, resolve_recovery
from harness.sweeps.dissociation import resolve as dissociation
from harness.sweeps.dry_run import forecast_sweep
from harness.sweeps.goal.dry_run import forecast_search
from harness.sweeps.goal.resolve import resolve_goal
from harness.sweeps.grid import resolve_sweep
from harness.sweeps.joint.dry_run import forecast_joint
from harness.sweeps.joint.resolve import resolve_joint
from tasks import sandbox

FORECASTS: list[tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = [
    (resolve, forecast, {}),
    (resolve_recovery, forecast, {}),
    (resolve_goal, forecast_search, {"params": "1M"}),
    (resolve_joint, forecast_joint, {"structure": "joint", "params": "1M"}),
    (resolve_sweep, forecast_sweep, {}),
    (dissociation.resolve_dissociation, dissociation.forecast, {}),
]


@pytest.mark.parametrize(("resolver", "forecast", "options"), FORECASTS)
def test_a_dry_run_of_a_code_task_needs_a_sandbox_as_the_run_does(
    resolver: Callable[..., Any],
    forecast: Callable[..., Any],
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: "no sandbox for model-written code")
    for tasks in (("mini_math", "mini_facts"), ("mini_math", "mini_facts", "mini_code")):
        spec = resolver(load_config(None, {"model": "tiny-math", "task": tasks, **options}))
        if "mini_code" not in tasks:
            forecast(spec, tmp_path)
            continue
        with pytest.raises(MeasurementError, match="no sandbox for model-written code"):
            forecast(spec, tmp_path)

"""What structures cost is measured before anything is scored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import MeasurementError
from harness.core.run_directory import RunDirectory
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import scores_file
from harness.serving.cost_probes import HELD_OUT
from harness.serving.cost_table import Costs, CostTable, Sizes, Timed
from harness.sweeps.joint import experiment
from harness.sweeps.joint.resolve import resolve_joint
from pruning.checkpoint import open_model
from pruning.families import shape_of, widths_of
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow  # loads a tokenizer


def sizes_said(said: Mapping[str, Any]) -> tuple[tuple[int, ...], int]:
    """FFN widths and how many layers lack their attention."""
    return widths_of(said), shape_of(said).skipped_attention


def test_a_speed_that_the_costs_rule_out_is_refused_before_the_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By made-up costs that no layer, neuron or row takes part in. The configs that are timed need no scores."""

    def measured(_model: Any, probes: Mapping[str, Sizes], configured: Any, _timing: Any) -> CostTable:
        found = {name: sizes_said(configured(sizes)) for name, sizes in probes.items()}
        assert found == {name: (sizes.widths, sizes.skipped) for name, sizes in probes.items()}
        dense, held_out = (Timed(name, probes[name], (1.0,)) for name in ("dense", HELD_OUT))
        return CostTable("here", (1,), (Costs(1.0, 0.0, 0.0, 0.0, 0.0),), (dense,), held_out)

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(experiment, "measure_costs", measured)
    asked = {"model": "tiny-math", "task": "mini_math", "structure": "joint", "speedup": 1.05, "concurrency": [1]}
    folder = tmp_path / "run"
    folder.mkdir()
    directory = RunDirectory(folder)
    directory.open({}, fresh=False)
    with pytest.raises(
        MeasurementError, match=r"no plan of FFN widths, attention and layers meets --speedup 1\.05 by the costs"
    ):
        experiment.run_all(RunContext(resolve_joint(load_config(None, asked)), open_model(TINY_MATH), directory))
    assert not scores_file(folder).exists()

"""A candidate is judged by its own sizes and by its own timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.types.goal import Candidate
from harness.core.types.pruning import PredictedCheckpoint
from harness.core.types.serving import SpeedRatio
from harness.pipeline.arms import Arm
from harness.pipeline.run_context import VariantState
from harness.pipeline.run_files import serving_file
from harness.pipeline.run_json import save_serving
from harness.serving.roofline import find_device, kv_capacity_tokens
from harness.sweeps.goal import experiment
from harness.sweeps.goal.experiment import Search
from harness.sweeps.goal.resolve import resolve_goal, search_space

WIDTHS = {"even": (320, 320, 320, 320), "uneven": (512, 320, 320, 128)}  # of the four layers
FASTER = {"even": 1.4, "uneven": 0.9}


class Planned(Search):
    """Two ways of pruning with the same neurons in all, already evaluated."""

    def planned(self, way: str | None, index: int) -> tuple[Arm, VariantState]:
        assert way and index == 0
        name, arm = way, self.run.spec.arms[0]
        self.states[name] = VariantState(name, PredictedCheckpoint(WIDTHS[name], 0, 0, {}), name)
        return replace(arm, name=name, kind=name), self.states[name]

    def evaluate(self, state: VariantState) -> None: ...

    def right(self, name: str) -> tuple[Any, ...]:
        return () if name in WIDTHS else super().right(name)


def search(path: Path, **goal: Any) -> Planned:
    spec = resolve_goal(load_config(None, {"model": "tiny-math", "task": ("mini_math",), **goal}))
    run: Any = SimpleNamespace(spec=spec, path=path, config=spec.config)
    return Planned(run, replace(search_space(spec), ways=("even", "uneven"), widths=(320,)))


def test_the_widest_layer_decides_what_a_device_holds(tmp_path: Path) -> None:
    found = search(tmp_path, params="1M", fits="2GiB")
    shape = found.run.spec.shape
    conditions = {way: found.look(way, 0).conditions for way in WIDTHS}
    for way, (params, fits) in conditions.items():
        left = shape.parameters - (4 * 640 - sum(WIDTHS[way])) * 3 * shape.hidden_size
        narrow = replace(shape, parameters=left, intermediate_size=max(WIDTHS[way]), dtype_bytes=2)
        assert (params.value, fits.value) == (left, kv_capacity_tokens(narrow, find_device("2GiB")))
    assert conditions["even"] != conditions["uneven"]


def test_another_way_of_the_same_width_is_timed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(run: Any, states: Sequence[VariantState]) -> None:
        speeds = [SpeedRatio(s.name, "dense", 1, "output_tok_s", 5, 1.0, FASTER[s.name], 2.0, 1.0, 1.0) for s in states]
        save_serving({}, speeds, serving_file(run.path))

    monkeypatch.setattr(experiment, "_time", timed)
    monkeypatch.setitem(WIDTHS, "uneven", WIDTHS["even"])
    found = search(tmp_path, speedup=1.2)
    assert found.is_fast(0)
    found.planned("uneven", 0)
    chosen = found.with_speed(Candidate("uneven", "uneven", 320, 0.5, ()))
    assert [c.value for c in chosen.conditions] == [0.9] and not chosen.met

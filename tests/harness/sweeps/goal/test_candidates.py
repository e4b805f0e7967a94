"""A candidate is judged by its own sizes and by its own timing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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


def timed_at(intervals: Mapping[str, Sequence[tuple[float, float]]]) -> Any:
    """In place of `measure_speed`: of each variant its interval, and the one by more passes."""

    def measure(run: Any, states: Sequence[VariantState], _attempt: Any, longer: Collection[str]) -> None:
        found = {state.name: intervals[state.name][state.name in longer] for state in states}
        speeds = [
            SpeedRatio(name, "dense", 1, "output_tok_s", 5, low, low, high, 1, 1) for name, (low, high) in found.items()
        ]
        save_serving({}, speeds, serving_file(run.path))

    return measure


def test_another_way_of_the_same_width_is_timed_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "measure_speed", timed_at({"even": [(1.4, 1.5)], "uneven": [(0.9, 1.1)]}))
    monkeypatch.setitem(WIDTHS, "uneven", WIDTHS["even"])
    found = search(tmp_path, speedup=1.2)
    assert found.is_fast(0)
    found.planned("uneven", 0)
    chosen = found.with_speed(Candidate("uneven", "uneven", 320, 0.5, ()))
    assert [c.value for c in chosen.conditions] == [0.9] and not chosen.met


@pytest.mark.parametrize(
    ("intervals", "value"),
    [
        ([(1.1, 1.3), (1.21, 1.25)], 1.21),
        ([(1.1, 1.3), (1.15, 1.18)], 1.15),
        ([(1.1, 1.3), (1.15, 1.3)], 1.15),
        ([(1.1, 1.15)], 1.1),
        ([(1.25, 1.3)], 1.25),
    ],
)
def test_a_width_whose_interval_has_the_goal_inside_is_timed_by_more_passes_once(
    intervals: Sequence[tuple[float, float]],
    value: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(experiment, "measure_speed", timed_at({"even": intervals}))
    found = search(tmp_path, speedup=1.2)
    assert found.is_fast(0) is (value >= 1.2) and found.speed(found.states["even"]).value == value
    assert found.time(found.states["even"])[0].ci_low == value, "what is written last is what was judged"
    assert capsys.readouterr().err.count("timed by more passes") == len(intervals) - 1

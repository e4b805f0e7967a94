"""Which variants of a run are timed, by the room that a device is said to have."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.engine import memory_budget
from harness.pipeline import run as pipeline

GIB = 1 << 30


def timed(monkeypatch: pytest.MonkeyPatch, gpu_gib: int, *weights_gib: int, parallel: int = 1) -> list[str]:
    monkeypatch.setattr(memory_budget, "device_name", lambda: "cuda")
    monkeypatch.setattr(memory_budget, "device_bytes", lambda: gpu_gib * GIB)
    states: Any = [
        SimpleNamespace(name=str(i), folder=SimpleNamespace(weight_bytes=gib * GIB, config={"dtype": "bfloat16"}))
        for i, gib in enumerate(weights_gib)
    ]
    run: Any = SimpleNamespace(config=SimpleNamespace(tensor_parallel=parallel, dtype="default"))
    return [state.name for state in pipeline._timed_together(run, states)]


@pytest.mark.parametrize(
    ("gpu_gib", "expected"), [(141, ["0", "1", "2", "3"]), (80, ["0", "1"]), (48, ["0", "1"]), (24, [])]
)
def test_as_many_are_timed_as_fit_and_none_where_two_do_not(
    gpu_gib: int, expected: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four engines of 7B on one card: 0.9 of it in four parts, less 4 GiB each, against 1.1 * 15 GiB."""
    assert timed(monkeypatch, gpu_gib, 15, 13, 15, 13) == expected
    said = capsys.readouterr().err
    assert ("nothing is timed" in said) is (not expected) and ("only 0 and 1 are timed" in said) is (len(expected) == 2)


def test_more_gpus_have_room_for_what_one_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, 24, 15, 13, parallel=4) == ["0", "1"]


def test_a_run_that_times_nothing_asks_nothing_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timed(monkeypatch, 80) == []

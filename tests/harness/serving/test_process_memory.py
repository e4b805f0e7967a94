"""The memory of a process as psutil has it, and an engine that does not start in a process of its own."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from harness.core.errors import MeasurementError
from harness.engine.memory_budget import EngineSettings
from harness.serving import process_memory
from harness.serving.process_memory import EngineMemory, footprint
from harness.serving.workload import Workload
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

MODEL = replace(open_model(TINY_MATH), path=Path("m"))
WORKLOAD = Workload("task", ((1, 2),), 4)


def test_resident_and_peak_bytes_are_the_kernels() -> None:
    """A gigabyte's eighth that is touched and given back stays in the peak alone."""
    resident, peak = process_memory._process_bytes()
    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.05) and peak >= resident
    block = np.ones(1 << 24)
    grown, _ = process_memory._process_bytes()
    del block
    after, highest = process_memory._process_bytes()
    assert (
        grown - resident == pytest.approx(1 << 27, rel=0.1) and highest > 0.99 * grown > after
    )  # counted a little late


def answering(monkeypatch: pytest.MonkeyPatch, **made: Any) -> list[Any]:
    """The process that would start an engine, with what it prints and how it ends; what it was given."""
    given: list[Any] = []

    def run(command: list[str], **options: Any) -> Any:
        given.append((command, options["input"]))
        return SimpleNamespace(**{"returncode": 0, "stdout": "", "stderr": "", **made})

    monkeypatch.setattr(subprocess, "run", run)
    return given


def test_the_last_line_is_the_measurement_whatever_the_engine_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    line = '{"resident_bytes": 3, "peak_bytes": 5, "engine_weight_bytes": null}'
    given = answering(monkeypatch, stdout=f"loading ...\n{line}\n")
    assert footprint(MODEL, EngineSettings(), WORKLOAD, 2) == EngineMemory(3, 5, None)
    assert '"concurrency": 2' in given[0][1] and '"model": "m"' in given[0][1]


@pytest.mark.parametrize(
    ("stderr", "said"), [("Traceback\nOSError: no room\n", "OSError: no room"), ("", "exit code 9")]
)
def test_an_engine_that_does_not_start_says_why(stderr: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, returncode=9, stderr=stderr)
    with pytest.raises(MeasurementError, match=f"no engine on m in a process of its own: {said}"):
        footprint(MODEL, EngineSettings(), WORKLOAD, 2)

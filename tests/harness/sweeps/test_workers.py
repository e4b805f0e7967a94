"""Cells to workers: with workers that fail as they are told, and with a real process and a real engine that is
killed.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import MeasurementError
from harness.core.types.evaluation import EvalResult
from harness.engine.devices import worker_environment
from harness.sweeps.cells import Cell, CellContext
from harness.sweeps.workers import LocalWorker, WorkerDied, run_cells
from tests.support.sweeps import bench_in

CELLS = [Cell(str(i), None, f"key{i}") for i in range(8)]


class Scripted:
    """Answers after a moment; `deaths` and `failures`: (cell, "ask" or "collect") at which it dies once, or fails."""

    def __init__(self, deaths: set[tuple[str, str]], failures: set[tuple[str, str]], log: list[str]) -> None:
        self.deaths, self.failures, self.log, self.dead = deaths, failures, log, False
        self.started: Future[None] = Future()
        self.started.set_result(None)

    def ask(self, cell: Cell) -> Future[Any]:
        return self._answer("ask", cell)

    def collect(self, cell: Cell) -> Future[Any]:
        return self._answer("collect", cell)

    def stop(self) -> None:
        self.dead = True

    def _answer(self, method: str, cell: Cell) -> Future[Any]:
        found: Future[Any] = Future()

        def later() -> None:
            time.sleep(0.001)
            at = (cell.name, method)
            if self.dead or at in self.deaths:
                self.deaths.discard(at)
                self.dead = True
                found.set_exception(WorkerDied("gone"))
            elif at in self.failures:
                found.set_exception(MeasurementError(f"{cell.name} is wrong"))
            else:
                self.log.append(f"{method} {cell.name}")
                found.set_result({"task": cell.name} if method == "collect" else None)

        threading.Thread(target=later).start()
        return found


places = st.tuples(st.sampled_from([cell.name for cell in CELLS]), st.sampled_from(["ask", "collect"]))


@settings(deadline=None, max_examples=40)
@given(deaths=st.sets(places, max_size=5), failures=st.sets(places, max_size=4), workers=st.integers(1, 4))
def test_every_cell_is_done_or_failed_once_whatever_dies(deaths: set[Any], failures: set[Any], workers: int) -> None:
    outcomes: dict[str, list[Any]] = {}
    left = set(deaths)

    def done(cell: Cell, outcome: Any) -> None:
        outcomes.setdefault(cell.name, []).append(outcome)

    run_cells(CELLS, lambda _: Scripted(left, failures, []), workers, done)
    assert sorted(outcomes) == [cell.name for cell in CELLS] and all(len(found) == 1 for found in outcomes.values())
    for name, (found,) in outcomes.items():
        wrong = {method for cell, method in failures if cell == name}
        if not wrong and not any(cell == name for cell, _ in deaths):
            assert found == {"task": name}, (
                "one that was only being graded when the other killed the worker is done again"
            )
        if isinstance(found, Exception) and "is wrong" in str(found):
            assert wrong


def test_a_cell_that_kills_two_workers_is_failed_and_the_rest_goes_on() -> None:
    class Poisoned(Scripted):
        def ask(self, cell: Cell) -> Future[Any]:
            if cell.name == "3":
                self.deaths.add(("3", "ask"))
            return super().ask(cell)

    outcomes: dict[str, Any] = {}
    run_cells(
        CELLS, lambda _: Poisoned(set(), set(), []), 1, lambda cell, found: outcomes.__setitem__(cell.name, found)
    )
    assert "2 times on this cell" in str(outcomes.pop("3")) and len(outcomes) == 7
    assert [o for o in outcomes.values() if isinstance(o, Exception)] == []


def test_one_cell_is_graded_while_the_next_is_asked() -> None:
    log: list[str] = []
    run_cells(CELLS[:3], lambda _: Scripted(set(), set(), log), 1, lambda cell, _: log.append(f"done {cell.name}"))
    assert log.index("done 0") < log.index("ask 2"), "a verdict waits for no later cell"


def test_the_next_cell_is_asked_before_the_last_one_is_graded() -> None:
    class Slow(Scripted):
        """Grades only once the next cell has been asked."""

        def __init__(self) -> None:
            super().__init__(set(), set(), [])
            self.asked = {cell.name: threading.Event() for cell in CELLS}

        def ask(self, cell: Cell) -> Future[Any]:
            self.asked[cell.name].set()
            return super().ask(cell)

        def collect(self, cell: Cell) -> Future[Any]:
            found: Future[Any] = Future()
            after = self.asked[str(min(int(cell.name) + 1, 2))]
            threading.Thread(target=lambda: found.set_result({"task": after.wait(10)})).start()
            return found

    outcomes: dict[str, Any] = {}
    run_cells(CELLS[:3], lambda _: Slow(), 1, lambda cell, found: outcomes.__setitem__(cell.name, found))
    assert list(outcomes.values()) == [{"task": True}] * 3


def test_after_a_failure_another_engine_goes_on() -> None:
    started: list[Scripted] = []
    outcomes: dict[str, Any] = {}

    def start(_: int) -> Scripted:
        started.append(Scripted(set(), {("2", "ask")}, []))
        return started[-1]

    run_cells(CELLS, start, 1, lambda cell, found: outcomes.__setitem__(cell.name, found))
    assert len(started) == 2 and isinstance(outcomes.pop("2"), MeasurementError) and len(outcomes) == 7
    assert started[0].dead


def test_an_interrupt_ends_everything_before_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes to the main thread while it waits: no cell is heard of and no worker started afterwards."""
    heard: list[str] = []
    started: list[Scripted] = []
    join = threading.Thread.join

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if heard and not getattr(interrupted, "done", False):
            interrupted.done = True  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        join(self, 0.005 if not heard else timeout)
        if self.is_alive() and not heard:
            interrupted(self, timeout)

    def start(_: int) -> Scripted:
        started.append(Scripted(set(), set(), []))
        return started[-1]

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    many = [Cell(str(i), None, "") for i in range(500)]
    with pytest.raises(KeyboardInterrupt):
        run_cells(many, start, 2, lambda cell, _: heard.append(cell.name))
    then = (len(heard), len(started))
    time.sleep(0.1)
    assert (len(heard), len(started)) == then and len(heard) < 500 and all(worker.dead for worker in started)


def test_what_done_raises_ends_the_sweep_and_is_raised() -> None:
    def full(_cell: Cell, _outcome: Any) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_cells(CELLS, lambda _: Scripted(set(), set(), []), 2, full)


def test_no_worker_at_all_is_an_error() -> None:
    def broken(_: int) -> Scripted:
        worker = Scripted(set(), set(), [])
        worker.started = Future()
        worker.started.set_exception(MeasurementError("vLLM cannot load this"))
        return worker

    with pytest.raises(MeasurementError, match="no worker could be started: vLLM cannot load this"):
        run_cells(CELLS, broken, 2, lambda *_: None)
    with pytest.raises(MeasurementError, match="no worker could be started: out of processes"):
        run_cells(CELLS, lambda _: (_ for _ in ()).throw(OSError("out of processes")), 2, lambda *_: None)


def test_a_worker_that_dies_while_it_starts_is_started_once_more() -> None:
    tries: list[int] = []

    def unlucky(number: int) -> Scripted:
        worker = Scripted(set(), set(), [])
        if not tries:
            worker.started = Future()
            worker.started.set_exception(WorkerDied("killed"))
        tries.append(number)
        return worker

    outcomes: dict[str, Any] = {}
    run_cells(CELLS, unlucky, 1, lambda cell, found: outcomes.__setitem__(cell.name, found))
    assert len(tries) == 2 and len(outcomes) == 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("launch")


@pytest.mark.thorough
@pytest.mark.slow
def test_a_killed_process_is_replaced_and_its_cell_done_again(folder: Path) -> None:
    started: list[LocalWorker] = []
    outcomes: dict[str, Any] = {}

    def start(number: int) -> LocalWorker:
        worker = LocalWorker(bench_in(folder), worker_environment(number, 1))
        started.append(worker)
        if len(started) == 1:  # at its first cell
            worker.started.add_done_callback(lambda _: os.kill(worker.process.pid or 0, signal.SIGKILL))
        return worker

    run_cells(
        [Cell("dense", None, "a"), Cell("again", None, "b")],
        start,
        1,
        lambda cell, found: outcomes.__setitem__(cell.name, found),
    )
    assert len(started) == 2 and not any(worker.process.is_alive() for worker in started)
    assert {name: type(found) for name, found in outcomes.items()} == {"dense": dict, "again": dict}
    assert all(
        isinstance(found["mini_facts"], EvalResult) and found["mini_facts"].n == 8 for found in outcomes.values()
    )
    texts = [(folder / "samples" / name / "mini_facts.jsonl").read_text() for name in ("dense", "again")]
    assert texts[0] == texts[1]


@pytest.mark.thorough
@pytest.mark.slow
def test_an_engine_that_cannot_start_says_why(folder: Path, tmp_path: Path) -> None:
    bench, broken = bench_in(folder), replace(bench_in(folder).model, path=tmp_path)
    worker = LocalWorker(
        CellContext(model=broken, eval_spec=bench.eval_spec, settings=bench.settings, run=folder, reference="dense"), {}
    )
    try:
        assert isinstance(worker.started.exception(timeout=120), MeasurementError)
    finally:
        worker.stop()

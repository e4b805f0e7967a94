"""Cells to workers: each has one cell at the engine and one being graded; a dead worker's cells go to another one."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Protocol

from harness.core.errors import MeasurementError, first_line
from harness.core.progress import say
from harness.core.types.evaluation import EvalResult
from harness.sweeps.cells import Cell, CellContext, CellWorker

_PATIENCE = 5  # seconds that a worker has to end by itself
_TRIES, _BYSTANDER_TRIES = (
    2,
    5,
)  # of a cell whose worker died: what kills two workers is the cell, or very often the one after it
Outcome = dict[str, EvalResult] | Exception


class Worker(Protocol):
    """Where cells are evaluated: a process here, an actor of Ray's. Futures fail with WorkerDied where it is gone."""

    started: Future[None]

    def ask(self, cell: Cell) -> Future[None]: ...

    def collect(self, cell: Cell) -> Future[dict[str, EvalResult]]: ...

    def stop(self) -> None: ...


class WorkerDied(Exception):
    """Not the cell's fault, as far as one can see."""


def run_cells(
    cells: Sequence[Cell], start: Callable[[int], Worker], workers: int, done: Callable[[Cell, Outcome], None]
) -> None:
    """Every cell by one of `workers` workers; `done` hears of each, one at a time, what came out or what went wrong.

    Raises MeasurementError where no worker can be started, and whatever `done` raises.
    """
    waiting = _Waiting(cells, done)
    slots = [
        threading.Thread(target=_slot, args=(number, start, waiting), daemon=True)
        for number in range(min(workers, len(cells)))
    ]
    for slot in slots:
        slot.start()
    try:
        for slot in slots:
            slot.join()
    except BaseException:  # Ctrl-C: nothing is begun any more, and nobody writes once this is raised
        waiting.ended = True
        for worker in list(waiting.workers):
            worker.stop()
        for slot in slots:
            slot.join()
        raise
    if waiting.error:
        raise waiting.error
    if waiting.left():
        raise MeasurementError(f"no worker could be started: {waiting.unusable}")


class _Waiting:
    """The cells that nobody has yet, and what was tried. `ended`: nobody can hear of further cells."""

    def __init__(self, cells: Sequence[Cell], done: Callable[[Cell, Outcome], None]) -> None:
        self.queue: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        self.deaths, self.bystander = ({cell.name: 0 for cell in cells} for _ in range(2))
        self.lock, self.report, self.workers = threading.Lock(), done, list[Worker]()
        self.error: BaseException | None = None
        self.ended, self.unusable = False, ""
        for cell in cells:
            self.queue.put(cell)

    def left(self) -> bool:
        return not self.queue.empty() and not self.ended

    def take(self) -> Cell | None:
        with suppress(queue.Empty):
            return None if self.ended else self.queue.get_nowait()
        return None

    def done(self, cell: Cell, outcome: Outcome) -> None:
        with self.lock:
            if self.ended:
                return
            try:
                self.report(cell, outcome)
            except BaseException as error:  # for the caller: this thread has no one to raise it to
                self.ended, self.error = True, error

    def died(self, cell: Cell, error: WorkerDied) -> None:
        """At this cell."""
        self._again(cell, error, self.deaths, _TRIES)

    def died_beside(self, cell: Cell, error: WorkerDied) -> None:
        """Beside another one, which may have been the reason."""
        self._again(cell, error, self.bystander, _BYSTANDER_TRIES)

    def _again(self, cell: Cell, error: WorkerDied, counted: dict[str, int], tries: int) -> None:
        counted[cell.name] += 1
        if counted[cell.name] < tries:
            self.queue.put(cell)
        else:
            self.done(cell, MeasurementError(f"{error}, {tries} times on this cell"))


def _slot(number: int, start: Callable[[int], Worker], waiting: _Waiting) -> None:
    """A worker, and another one in its place where it dies or fails."""
    while waiting.left():
        worker = _started(number, start, waiting)
        if worker is None:
            return  # the others go on without it
        _drive(worker, waiting)
        worker.stop()
        waiting.workers.remove(worker)


def _started(number: int, start: Callable[[int], Worker], waiting: _Waiting) -> Worker | None:
    """None where it cannot be had; one that died on the way may have been unlucky."""
    for _ in range(_TRIES):
        worker, error = None, None
        try:
            worker = start(number)
            waiting.workers.append(worker)
            error = worker.started.exception()
        except Exception as failure:
            error = failure
        if error is None:
            return worker
        waiting.unusable = first_line(error)
        say(f"worker {number} could not be started: {waiting.unusable}")
        if worker:
            worker.stop()
            waiting.workers.remove(worker)
        if waiting.ended or not isinstance(error, WorkerDied):
            break
    return None


def _drive(worker: Worker, waiting: _Waiting) -> None:
    """Gives the worker a cell after the other, until none is left, it dies, or it fails: then its engine may be
    broken.
    """
    grading: tuple[Cell, Future[dict[str, EvalResult]]] | None = None
    while cell := waiting.take():
        asked = worker.ask(cell)
        alive, grading = _finish(grading, waiting), None
        error = asked.exception()
        if isinstance(error, WorkerDied):
            (waiting.died if alive else waiting.died_beside)(cell, error)  # two cells lost: nobody knows at which
            return
        if error:
            waiting.done(cell, _as_error(error))
            return
        grading = (cell, worker.collect(cell))
        if not alive:
            break
    _finish(grading, waiting)


def _finish(grading: tuple[Cell, Future[dict[str, EvalResult]]] | None, waiting: _Waiting) -> bool:
    """Whether the worker is still there."""
    if grading is None:
        return True
    cell, graded = grading
    error = graded.exception()
    if isinstance(error, WorkerDied):
        waiting.died_beside(cell, error)
        return False
    waiting.done(cell, graded.result() if error is None else _as_error(error))
    return True


def _as_error(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


class LocalWorker:
    """A process of this machine with an engine of its own, which ends with this one."""

    def __init__(self, bench: CellContext, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, bench, dict(environment)))
        self.process.start()  # no daemon: those may not have the children that an engine on several devices has
        theirs.close()
        self.started: Future[None] = Future()
        self.waiting: dict[str, Future[Any]] = {"start": self.started}
        self.lock = threading.Lock()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, cell: Cell) -> Future[None]:
        return self._send("ask", cell)

    def collect(self, cell: Cell) -> Future[dict[str, EvalResult]]:
        return self._send("collect", cell)

    def stop(self) -> None:
        with suppress(OSError):
            self.connection.send(None)
        self.process.join(_PATIENCE)
        self.process.kill()
        self.process.join()

    def _send(self, method: str, cell: Cell) -> Future[Any]:
        found: Future[Any] = Future()
        with self.lock:
            self.waiting[method] = found
        try:
            self.connection.send((method, cell))
        except OSError:
            self._died()
        return found

    def _listen(self) -> None:
        try:
            while True:
                method, value, error = self.connection.recv()
                with self.lock:
                    found = self.waiting.pop(method)
                found.set_exception(error) if error else found.set_result(value)
        except (EOFError, OSError):
            self._died()

    def _died(self) -> None:
        self.process.join(_PATIENCE)
        with self.lock:
            left, self.waiting = list(self.waiting.values()), {}
        for found in left:
            found.set_exception(WorkerDied(f"the worker process ended with exit code {self.process.exitcode}"))


def _serve(connection: Connection, bench: CellContext, environment: Mapping[str, str]) -> None:
    """The process: cells are asked in its main thread, where the engine is; verdicts are waited for in others."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    lock = threading.Lock()

    def answer(method: str, work: Callable[[], Any]) -> Any:
        value, error = None, None
        try:
            value = work()
        except Exception as failure:
            error = MeasurementError(first_line(failure))
        with lock:
            connection.send((method, None if method == "start" else value, error))
        return value

    worker = answer("start", lambda: CellWorker(bench))
    while worker and (order := connection.recv()) is not None:
        method, cell = order
        work = partial(getattr(worker, method), cell)
        if method == "ask":
            answer(method, work)
        else:
            threading.Thread(target=answer, args=(method, work), daemon=True).start()
    if worker:
        worker.stop()


def _end_with_parent() -> None:
    """A killed sweep leaves nobody behind who still writes into its directory."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)

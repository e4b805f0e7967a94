"""Distributes cells over workers: each has one cell at its engine and one being graded. A dead worker's cells are
retried.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Protocol

from harness.core.errors import MeasurementError, first_line
from harness.core.progress import say
from harness.core.types.evaluation import EvalResult
from harness.sweeps.cells import Cell, CellContext, CellWorker

_PATIENCE = 5  # seconds for a worker to end on request
_TRIES = 2  # of a cell whose worker died
_BYSTANDER_TRIES = 5  # of a cell that was being graded when its worker died: another cell may be the reason
Outcome = dict[str, EvalResult] | Exception


class Worker(Protocol):
    """Evaluates cells: a local process or a Ray actor. Its futures fail with WorkerDied once it is gone."""

    started: Future[None]

    def ask(self, cell: Cell) -> Future[None]: ...

    def collect(self, cell: Cell) -> Future[dict[str, EvalResult]]: ...

    def stop(self) -> None: ...


class WorkerDied(Exception):
    """The worker is gone; the cell it worked on may not be the reason."""


def run_cells(
    cells: Sequence[Cell], start: Callable[[int], Worker], workers: int, done: Callable[[Cell, Outcome], None]
) -> None:
    """Evaluates every cell on one of `workers` workers.

    Args:
        cells: What to evaluate.
        start: Starts the worker with this number.
        workers: Workers at the same time.
        done: Called with every cell and its results or error, one call at a time.

    Raises:
        MeasurementError: No worker can be started. Whatever `done` raises is raised too.
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
    except BaseException:  # Ctrl-C: start nothing more, and let nothing write after this is raised
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
    """The cells that no worker has taken, and the failures so far. `ended`: no further outcome may be reported."""

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
        """The worker died on this cell."""
        self._again(cell, error, self.deaths, _TRIES)

    def died_beside(self, cell: Cell, error: WorkerDied) -> None:
        """The worker died on another cell, which may have been the reason."""
        self._again(cell, error, self.bystander, _BYSTANDER_TRIES)

    def _again(self, cell: Cell, error: WorkerDied, counted: dict[str, int], tries: int) -> None:
        counted[cell.name] += 1
        if counted[cell.name] < tries:
            self.queue.put(cell)
        else:
            self.done(cell, MeasurementError(f"{error}, {tries} times on this cell"))


def _slot(number: int, start: Callable[[int], Worker], waiting: _Waiting) -> None:
    """Runs a worker, and a new one whenever it dies or fails."""
    while waiting.left():
        worker = _started(number, start, waiting)
        if worker is None:
            return  # the others go on without it
        _drive(worker, waiting)
        worker.stop()
        waiting.workers.remove(worker)


def _started(number: int, start: Callable[[int], Worker], waiting: _Waiting) -> Worker | None:
    """A started worker; None where none can be had. One that dies while starting is tried again."""
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
    """Gives the worker one cell at a time until none is left, it dies, or it fails: its engine may be broken then."""
    grading: tuple[Cell, Future[dict[str, EvalResult]]] | None = None
    while cell := waiting.take():
        asked = worker.ask(cell)
        alive, grading = _finish(grading, waiting), None
        error = asked.exception()
        if isinstance(error, WorkerDied):
            (waiting.died if alive else waiting.died_beside)(cell, error)  # two cells lost: either may be the reason
            return
        if error:
            waiting.done(cell, _as_error(error))
            return
        grading = (cell, worker.collect(cell))
        if not alive:
            break
    _finish(grading, waiting)


def _finish(grading: tuple[Cell, Future[dict[str, EvalResult]]] | None, waiting: _Waiting) -> bool:
    """Collects the graded cell; returns whether the worker is still alive."""
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
    """A process of this machine with its own engine; it ends with this process."""

    def __init__(self, context: CellContext, environment: Mapping[str, str]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_serve, args=(theirs, context, dict(environment)))
        with _no_main():
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


@contextmanager
def _no_main() -> Iterator[None]:
    """A process that is started inside does not import the caller's script again, which may have no guard."""
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, context: CellContext, environment: Mapping[str, str]) -> None:
    """The worker process: cells run in its main thread, where the engine is; verdicts are awaited in other threads."""
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

    worker = answer("start", lambda: CellWorker(context))
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
    """Ends this worker when its parent is killed, so that it does not write into the run directory any more."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)

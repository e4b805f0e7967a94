"""Cells on a Ray cluster: one actor per worker with an engine on GPUs of its own. The run directory has to be seen by every node.

RAY_ADDRESS names a cluster that is there; without it Ray starts one on this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from harness.cells import Bench, Cell, CellWorker
from harness.engine import EngineConfig
from harness.errors import MeasurementError, UsageError
from harness.launch import WorkerDied
from harness.types import EvalResult


def connect() -> None:
    """To the cluster, once; raises UsageError where Ray is not installed, MeasurementError where the cluster cannot be reached."""
    try:
        import ray
    except ImportError as error:
        raise UsageError('--launcher ray needs the package ray; run `pip install "harness-prune[ray]"`') from error
    if ray.is_initialized():
        return
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False, configure_logging=False)
    except Exception as error:
        line = next(iter(str(error).splitlines()), repr(error))
        raise MeasurementError(f"no Ray cluster can be reached ({line}); check RAY_ADDRESS, or use --launcher local") from error


class RayActor(CellWorker):
    """A CellWorker in the process of an actor."""

    def __init__(self, bench: Bench) -> None:
        if not (bench.run / "manifest.json").exists():
            raise MeasurementError(f"{bench.run} is not seen on this node; put the run directory on storage that all nodes share")
        if not (bench.model / "config.json").exists():
            raise MeasurementError(f"{bench.model} is not seen on this node; put the model on storage that all nodes share")
        super().__init__(bench)


class RayWorker:
    """An actor. It is asked in one thread of its process and graded in another, and is not started again by Ray: the launcher does."""

    def __init__(self, bench: Bench) -> None:
        import ray

        actor = ray.remote(concurrency_groups={"engine": 1, "grading": 1})(RayActor)
        self.actor = actor.options(max_restarts=0, **_resources(bench.config)).remote(bench)
        self.started: Future[None] = _future(self.actor.__ray_ready__.remote(), lambda _: None)

    def ask(self, cell: Cell) -> Future[None]:
        return _future(self.actor.ask.options(concurrency_group="engine").remote(cell), lambda _: None)

    def collect(self, cell: Cell) -> Future[dict[str, EvalResult]]:
        return _future(self.actor.collect.options(concurrency_group="grading").remote(cell), lambda value: value)

    def stop(self) -> None:
        import ray

        with suppress(Exception):  # of an actor that is gone
            ray.kill(self.actor)


def _resources(config: EngineConfig) -> dict[str, Any]:
    """GPUs where the cluster has any, else cores; which devices an actor sees is Ray's business."""
    import ray

    if ray.cluster_resources().get("GPU", 0) > 0:
        return {"num_gpus": config.tensor_parallel, "num_cpus": 1}
    return {"num_cpus": config.threads or 1, "runtime_env": {"env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}}}


def _future(reference: Any, value: Callable[[Any], Any]) -> Future[Any]:
    """Ray's as one of ours, with a death told from a failure."""
    found: Future[Any] = Future()

    def wait() -> None:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            found.set_result(value(ray.get(reference)))
        except RayTaskError as error:
            found.set_exception(MeasurementError(_line(error.cause if isinstance(error.cause, BaseException) else error)))
        except RayActorError as error:
            reason = getattr(error, "cause", None) or error
            gone = WorkerDied(f"the Ray actor died ({_line(reason)})")
            found.set_exception(gone)
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return found


def _line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), repr(error))

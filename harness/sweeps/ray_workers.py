"""Cells on a Ray cluster: one actor per worker with an engine on GPUs of its own. The run directory has to be seen by
every node.

RAY_ADDRESS names a cluster that is there; without it Ray starts one on this machine.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from harness.core.errors import MeasurementError, UsageError, first_line
from harness.core.types.evaluation import EvalResult
from harness.engine.vllm_engine import EngineConfig
from harness.sweeps.cells import Cell, CellContext, CellWorker
from harness.sweeps.workers import WorkerDied


def connect() -> None:
    """To the cluster, once; raises UsageError where Ray is not installed, MeasurementError where the cluster cannot be
    reached.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError('--launcher ray needs the package ray; run `pip install "harness-prune[ray]"`') from error
    if ray.is_initialized():
        return
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False, configure_logging=False)
    except Exception as error:
        raise MeasurementError(
            f"no Ray cluster can be reached ({first_line(error)}); check RAY_ADDRESS, or use --launcher local"
        ) from error


def default_workers(tensor_parallel: int) -> int:
    """One per set of GPUs of the whole cluster; without GPUs one per node."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    return max(1, gpus // tensor_parallel if gpus else len(_nodes()))


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class RayActor(CellWorker):
    """A CellWorker in the process of an actor."""

    def __init__(self, bench: CellContext) -> None:
        if not (bench.run / "manifest.json").exists():
            raise MeasurementError(
                f"{bench.run} is not seen on this node; put the run directory on storage that all nodes share"
            )
        if not (bench.model / "config.json").exists():
            raise MeasurementError(
                f"{bench.model} is not seen on this node; put the model on storage that all nodes share"
            )
        super().__init__(bench)


class RayWorker:
    """An actor. It is asked in one thread of its process and graded in another, and is not started again by Ray: the
    launcher does.
    """

    def __init__(self, bench: CellContext) -> None:
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
    """GPUs where the cluster has any, else cores; which devices an actor sees is Ray's business.

    Raises MeasurementError where no node has so many, for which Ray would wait without a word.
    """
    nodes = _nodes()
    shared = {key: value for key, value in os.environ.items() if key.startswith(("HARNESS_", "HF_"))}
    if any(node.get("GPU") for node in nodes):
        wanted = {"num_gpus": config.tensor_parallel, "num_cpus": 1}
    else:
        wanted, shared = {"num_cpus": config.threads or 1}, {**shared, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    for option, name in (("num_gpus", "GPU"), ("num_cpus", "CPU")):
        if wanted.get(option, 0) > max(node.get(name, 0) for node in nodes):
            raise MeasurementError(
                f"no node of the Ray cluster has {wanted[option]} {name}s; give fewer --threads or --tensor-parallel"
            )
    return {**wanted, "runtime_env": {"env_vars": shared}}


def _future(reference: Any, value: Callable[[Any], Any]) -> Future[Any]:
    """Ray's as one of ours, with a death told from a failure."""
    found: Future[Any] = Future()

    def wait() -> None:
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        try:
            found.set_result(value(ray.get(reference)))
        except RayTaskError as error:
            found.set_exception(
                MeasurementError(first_line(error.cause if isinstance(error.cause, BaseException) else error))
            )
        except RayActorError as error:
            found.set_exception(_death(error))
        except Exception as error:
            found.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return found


def _death(error: Exception) -> Exception:
    """Of an actor that could not be made, Ray's last line says why."""
    text = str(error).strip()
    if "creation task" in text:
        return MeasurementError(text.splitlines()[-1].rpartition("Error: ")[2])
    return WorkerDied(f"the Ray actor died ({first_line(error)})")

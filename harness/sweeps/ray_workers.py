"""Cells on a Ray cluster: one actor per worker with an engine on its own GPUs. All nodes must see the run directory.

RAY_ADDRESS names an existing cluster; without it Ray starts one on this machine.
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
from harness.engine.memory_budget import EngineSettings
from harness.sweeps.cells import Cell, CellContext, CellWorker
from harness.sweeps.workers import WorkerDied


def connect() -> None:
    """Connects to the cluster once.

    Raises:
        UsageError: Ray is not installed.
        MeasurementError: The cluster cannot be reached.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            '--launcher ray needs the package ray; run `make install-dev`, or `pip install ".[ray]"` in the clone'
        ) from error
    if ray.is_initialized():
        return
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False, configure_logging=False)
    except Exception as error:
        raise MeasurementError(
            f"no Ray cluster can be reached ({first_line(error)}); check RAY_ADDRESS, or use --launcher local"
        ) from error


def default_workers(tensor_parallel: int) -> int:
    """One worker per set of GPUs of the whole cluster; without GPUs one per node."""
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    return max(1, gpus // tensor_parallel if gpus else len(_nodes()))


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


class RayActor(CellWorker):
    """A CellWorker in the process of an actor."""

    def __init__(self, context: CellContext) -> None:
        if not (context.run / "manifest.json").exists():
            raise MeasurementError(
                f"{context.run} is not seen on this node; put the run directory on storage that all nodes share"
            )
        if not (context.model.path / "config.json").exists():
            raise MeasurementError(
                f"{context.model.path} is not seen on this node; put the model on storage that all nodes share"
            )
        super().__init__(context)


class RayWorker:
    """An actor. One thread of its process runs the engine, another grades. The launcher restarts it, not Ray."""

    def __init__(self, context: CellContext) -> None:
        import ray

        actor = ray.remote(concurrency_groups={"engine": 1, "grading": 1})(RayActor)
        self.actor = actor.options(max_restarts=0, **_resources(context.settings)).remote(context)
        self.started: Future[None] = _future(self.actor.__ray_ready__.remote(), lambda _: None)

    def ask(self, cell: Cell) -> Future[None]:
        return _future(self.actor.ask.options(concurrency_group="engine").remote(cell), lambda _: None)

    def collect(self, cell: Cell) -> Future[dict[str, EvalResult]]:
        return _future(self.actor.collect.options(concurrency_group="grading").remote(cell), lambda value: value)

    def stop(self) -> None:
        import ray

        with suppress(Exception):  # of an actor that is gone
            ray.kill(self.actor)


def _resources(config: EngineSettings) -> dict[str, Any]:
    """GPUs if the cluster has any, else cores; Ray decides which devices an actor sees.

    Raises:
        MeasurementError: No node has that many; Ray would wait for them silently.
    """
    nodes = _nodes()
    shared = {key: value for key, value in os.environ.items() if key.startswith(("HARNESS_", "HF_"))}
    if config.tensor_parallel > 1 or any(node.get("GPU") for node in nodes):
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
    """Ray's reference as a Future; tells a dead actor from a failed call."""
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
    """The error of a dead actor; for one that could not be created, Ray's last line has the reason."""
    text = str(error).strip()
    if "creation task" in text:
        return MeasurementError(text.splitlines()[-1].rpartition("Error: ")[2])
    return WorkerDied(f"the Ray actor died ({first_line(error)})")

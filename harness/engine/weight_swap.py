"""Swaps the FFN weights of a running engine, so that pruned variants need no restart.

KV cache shapes do not depend on the FFN; what the prefix cache holds does, so it is emptied with every swap. Works over
vLLM's worker interface, so with the engine in this process or in its own, on one device or several
(harness/engine/weight_swap_worker.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError, first_line
from harness.engine.vllm_engine import empty_prefix_cache


def swap(llm: Any, plan_file: Path) -> None:
    """The engine runs its model pruned by the plan, whatever it ran before.

    Raises MeasurementError where that is not possible; the engine runs the whole model then. Also, and changing
    nothing, while it answers.
    """
    _check_idle(llm)
    try:
        llm.collective_rpc("swap_ffn", args=(llm.llm_engine.vllm_config.model_config.model, str(plan_file)))
    except Exception as error:
        llm.collective_rpc("restore_ffn")  # on every device, as it may have failed on one
        raise MeasurementError(f"{plan_file} cannot be loaded into the running engine: {first_line(error)}") from error
    finally:
        empty_prefix_cache(llm)


def restore(llm: Any) -> None:
    """Puts back the dense model's weights, bit for bit; raises MeasurementError while requests are running."""
    _check_idle(llm)
    llm.collective_rpc("restore_ffn")
    empty_prefix_cache(llm)


def _check_idle(llm: Any) -> None:
    """A running request would get half an answer from each of two models, and its cache could not be emptied."""
    if llm.llm_engine.has_unfinished_requests():
        raise MeasurementError("weights can be swapped only between requests; wait for the running ones")


@contextmanager
def swapped(llm: Any, plan_file: Path) -> Iterator[None]:
    """The engine runs the plan's variant while inside, and the dense model again on leaving."""
    swap(llm, plan_file)
    try:
        yield
    finally:
        restore(llm)

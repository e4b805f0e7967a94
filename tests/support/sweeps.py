"""What the cells of a sweep share."""

from __future__ import annotations

from pathlib import Path

from harness.core.chat import ChatFormat
from harness.engine.memory_budget import EngineSettings
from harness.evaluation.lm_eval_requests import EvalSpec
from harness.sweeps.cells import CellContext
from pruning.checkpoint import open_model
from tasks.registry import find_task
from tests.support.models import TINY_MATH


def bench_in(folder: Path) -> CellContext:
    eval_spec = EvalSpec("tiny-math", (find_task("mini_facts"),), 128, chat=ChatFormat(), limit=8)
    return CellContext(
        model=open_model(TINY_MATH),
        eval_spec=eval_spec,
        settings=EngineSettings(max_model_len=128, kv_cache_bytes=1 << 26, threads=1),
        run=folder,
        reference="dense",
    )

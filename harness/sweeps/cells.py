"""The cells of a sweep and who evaluates them: one engine whose FFN weights are swapped, grading one cell while the
next is generated.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.core.types.evaluation import EvalResult
from harness.engine import weight_swap
from harness.engine.vllm_engine import EngineConfig, engine, prepare_environment
from harness.evaluation.evaluate import grade
from harness.evaluation.lm_eval_requests import EvalSpec, TaskResponses, VariantEval, ask, capture_requests
from tasks.grading import Grader


@dataclass(frozen=True)
class Cell:
    """One variant to evaluate: the model as it is, or pruned by the plan in a file. `key`: a hash of the weights that
    come out.
    """

    name: str
    plan: Path | None
    key: str


@dataclass(frozen=True)
class CellContext:
    """What all cells share. `run`: the run directory, seen by every worker; `reference`: the variant that others are
    compared with.
    """

    model: Path
    eval_spec: EvalSpec
    config: EngineConfig
    run: Path
    reference: str


class CellWorker:
    """`ask` uses the engine, `collect` does not: it waits for the verdicts on what was asked last, while the next cell
    is asked.
    """

    def __init__(self, bench: CellContext) -> None:
        prepare_environment(bench.config.threads)
        self.bench = bench
        self._engine = engine(bench.model, bench.config)
        self.llm = self._engine.__enter__()
        self.requests = capture_requests(self.llm, bench.eval_spec)
        self.grader, self.graders = Grader(), ThreadPoolExecutor(1, thread_name_prefix="cell")
        self.graded: dict[str, Future[dict[str, EvalResult]]] = {}

    def ask(self, cell: Cell) -> None:
        """Generates all answers of a cell and lets the grading begin."""
        reference = None if cell.name == self.bench.reference else self.bench.reference
        variant_eval = VariantEval(self.bench.run, cell.name, cell.key, reference)
        shutil.rmtree(variant_eval.samples, ignore_errors=True)  # of a cell that was killed
        if cell.plan:
            weight_swap.swap(self.llm, cell.plan)
        else:
            weight_swap.restore(self.llm)
        answered = ask(self.llm, self.bench.eval_spec, self.requests, variant_eval, self.grader)
        self.graded[cell.name] = self.graders.submit(self._grade, answered, variant_eval)

    def _grade(self, answered: Sequence[TaskResponses], variant_eval: VariantEval) -> dict[str, EvalResult]:
        return grade(answered, self.bench.eval_spec, variant_eval)

    def collect(self, cell: Cell) -> dict[str, EvalResult]:
        return self.graded.pop(cell.name).result()

    def stop(self) -> None:
        self.graders.shutdown(cancel_futures=True)
        self.grader.__exit__()
        self._engine.__exit__(None, None, None)

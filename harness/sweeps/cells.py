"""The cells of a sweep and their worker: one engine whose FFN weights are swapped; grading overlaps with generation."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.core.files import write_json
from harness.core.types.evaluation import EvalResult, KLToDense
from harness.engine import weight_swap
from harness.engine.engine_facts import engine_facts
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engine
from harness.evaluation.evaluate import grade, with_distance
from harness.evaluation.kl_to_dense import OwnAnswers, kl_to_dense, own_answers
from harness.evaluation.lm_eval_requests import EvalSpec, TaskResponses, VariantEval, ask, capture_requests
from harness.pipeline.run_files import engine_file
from pruning.checkpoint import ModelFolder
from tasks.grading import Grader


@dataclass(frozen=True)
class Cell:
    """One variant to evaluate: the dense model, or pruned by the plan in a file. `key`: a hash of the resulting
    weights. `tasks`: those that it is evaluated on; empty for all.
    """

    name: str
    plan: Path | None
    key: str
    tasks: tuple[str, ...] = ()

    @property
    def stage(self) -> str:
        """The name of its evaluation in the manifest."""
        return f"eval {self.name}"


@dataclass(frozen=True)
class CellContext:
    """What all cells share. `run`: the run directory, visible to every worker; `reference`: the variant to compare
    with; `measures_kl`: whether the distance to the dense model's own answers is measured.
    """

    model: ModelFolder
    eval_spec: EvalSpec
    settings: EngineSettings
    run: Path
    reference: str
    measures_kl: bool = False


class CellWorker:
    """`ask` uses the engine; `collect` waits for the verdicts on a cell, while the next one is at the engine."""

    def __init__(self, context: CellContext) -> None:
        self.context = context
        self._engine = engine(context.model, context.settings)
        self.llm = self._engine.__enter__()
        write_json(engine_file(context.run), asdict(engine_facts(self.llm, context.settings.options)))
        self.requests = capture_requests(self.llm, context.eval_spec)
        self.own = self._own_answers() if context.measures_kl else None  # before any swap
        self.grader, self.graders = Grader(), ThreadPoolExecutor(1, thread_name_prefix="cell")
        self.graded: dict[str, Future[dict[str, EvalResult]]] = {}

    def _own_answers(self) -> OwnAnswers | None:
        dense = VariantEval(self.context.run, self.context.reference)
        weights, eval_spec = self.context.model.fingerprint, self.context.eval_spec
        return own_answers(self.llm, eval_spec, self.requests[0], dense.own_answers, weights, is_dense=True)

    def ask(self, cell: Cell) -> None:
        """Generates all answers of a cell and starts grading them."""
        reference = None if cell.name == self.context.reference else self.context.reference
        variant_eval = VariantEval(self.context.run, cell.name, cell.key, reference)
        shutil.rmtree(variant_eval.samples, ignore_errors=True)  # of a cell that was killed
        if cell.plan:
            weight_swap.swap(self.llm, cell.plan)
        else:
            weight_swap.restore(self.llm)
        requests = [asked for asked in self.requests if not cell.tasks or asked.task.name in cell.tasks]
        answered = ask(self.llm, self.context.eval_spec, requests, variant_eval, self.grader)
        self.graded[cell.name] = self.graders.submit(
            self._grade, answered, variant_eval, kl_to_dense(self.llm, self.own)
        )

    def _grade(
        self, answered: Sequence[TaskResponses], variant_eval: VariantEval, distance: KLToDense | None
    ) -> dict[str, EvalResult]:
        eval_spec = self.context.eval_spec
        return with_distance(grade(answered, eval_spec, variant_eval), eval_spec, distance)

    def collect(self, cell: Cell) -> dict[str, EvalResult]:
        return self.graded.pop(cell.name).result()

    def stop(self) -> None:
        self.graders.shutdown(cancel_futures=True)
        self.grader.__exit__()
        self._engine.__exit__(None, None, None)

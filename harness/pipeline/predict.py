"""`harness plan MODEL --predict`: accuracy at several ratios from the distance to the dense model, on 64 prompts each.

The model is scored and planned as in a run. One engine answers a few hundred items with the dense model and then
measures each width by a live swap. No pruned variant answers anything, and no checkpoint is written.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from harness.config.settings import RunConfig
from harness.core.errors import MeasurementError, UsageError
from harness.core.labels import is_as_asked
from harness.core.types.evaluation import EvalResult, KLToDense, has_right_answers
from harness.engine.vllm_engine import Engines
from harness.engine.weight_swap import swapped
from harness.evaluation.forecast import Forecast, fit, forecast, nats_per_answer, read_grid
from harness.evaluation.kl_to_dense import kl_to_dense, own_answers
from harness.evaluation.lm_eval_requests import VariantEval, capture_requests
from harness.pipeline import stages
from harness.pipeline.arms import check_neurons, make_arm
from harness.pipeline.named_tasks import task_names
from harness.pipeline.resolve import ResolvedRun, resolve
from harness.pipeline.run import start
from harness.pipeline.run_context import RunContext, VariantState
from harness.pipeline.run_files import eval_file
from harness.pipeline.run_json import read_eval
from pruning.plan import real_ratio
from reports.figures import percent
from reports.parts import Table

_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
_ITEMS = 200  # that the dense model answers, where --limit does not say


@dataclass(frozen=True)
class PredictedRow:
    """One ratio: `kl`, what was measured; `forecast`, the accuracy that this lets expect on the items of the dense
    model.
    """

    ratio_requested: float
    ratio_neurons: float
    kl: KLToDense
    forecast: Forecast


@dataclass(frozen=True)
class Prediction:
    """`harness plan MODEL --predict --json` prints these fields. `n`: items that the dense model answered."""

    model: str
    task: str
    metric: str
    n: int
    dense: float
    rows: tuple[PredictedRow, ...]


def predict(config: RunConfig, ratio: float | None) -> Prediction:
    """Forecasts the target's accuracy.

    Args:
        config: The model, the task, and how it is scored and pruned.
        ratio: The only one; None: from 0.1 to 0.5.

    Raises:
        UsageError: A setting does not fit the model, several tasks are named, or the task's answers are not generated,
            or are neither right nor wrong.
        MeasurementError: A stage failed.
    """
    check_neurons(config, "plan --predict")
    if ratio == 0:
        raise UsageError("--ratio 0 removes nothing, so there is nothing to forecast; give a ratio above 0")
    if len(named := task_names(config)) > 1:
        raise UsageError(f"--predict forecasts one task, and {', '.join(named)} are named; give one --task")
    asked = config.model_copy(update={"limit": config.limit or _ITEMS})
    with tempfile.TemporaryDirectory(prefix="harness-predict-") as folder:
        resolver = partial(_resolve, ratios=_RATIOS if ratio is None else (ratio,))
        return start(asked, Path(folder) / "run", False, None, resolver, _measure)[0]


def _resolve(config: RunConfig, chat: bool, ratios: tuple[float, ...]) -> ResolvedRun:
    """An arm for each ratio, evaluated on the target alone; nothing is written or timed."""
    spec = resolve(config, chat, off_target=False)
    target = spec.target
    if not (has_right_answers(target.metric) and target.generates):
        what = "chooses among given ones" if has_right_answers(target.metric) else f"has {target.metric}"
        raise UsageError(
            f"--predict forecasts right answers that are generated, and {target.name} {what}; give another --task"
        )
    arms = {
        arm.name: arm
        for ratio in ratios
        for arm in [make_arm(config.model_copy(update={"ratio": ratio}), config.method, spec.shape)]
    }
    return replace(spec, tasks=(target,), arms=tuple(arms.values()), served=(), exported=(), sweep=True)


def _measure(run: RunContext) -> Prediction:
    stages.score(run)
    planned = [stages.plan(run, arm) for arm in run.spec.arms]
    with stages.open_engines(run, [run.base]) as engines:
        stages.evaluate(run, run.base, engines)
        dense = read_eval(eval_file(run.path, run.spec.base))[run.spec.target.name]
        rows = tuple(_rows(run, planned, engines, dense))
    return Prediction(run.spec.model, run.spec.target.name, dense.metric, dense.n, dense.value, rows)


def _rows(
    run: RunContext, planned: Sequence[VariantState], engines: Engines, dense: EvalResult
) -> Iterator[PredictedRow]:
    """Each width by a live swap, on the answers that the evaluation of the dense model has left."""
    base, llm, fitted = run.base, engines[run.spec.base], fit(read_grid())
    asked, file = capture_requests(llm, run.eval_spec)[0], VariantEval(run.path, base.name).own_answers
    own = own_answers(llm, run.eval_spec, asked, file, base.identity, is_dense=True)
    for arm, state in zip(run.spec.arms, planned, strict=True):
        with swapped(llm, cast(Path, state.plan)):
            kl = kl_to_dense(llm, own)
        if kl is None:
            raise MeasurementError(f"{arm.name} has no distance to the dense model; use `harness run`")
        done = real_ratio(arm.request, run.spec.shape.intermediate_size)
        distance = nats_per_answer(kl, dense.tokens_per_answer)
        yield PredictedRow(arm.request.ratio, done, kl, forecast(fitted, distance, dense.value, dense.n))


def prediction_table(made: Prediction) -> Table:
    """The table for a terminal."""
    head = ("ratio", "KL, nats per token", "top-1 agreement", "forecast", "90 % interval", "note")
    note = (
        f"dense: {percent(made.dense)} {made.metric} on {made.n} items, measured. forecast: as it would be measured on "
        "as many, from the distance to the dense model on its own answers, by a curve fitted to variants of tiny-math. "
        "extrapolated: the distance lies outside of theirs. `harness run` measures the accuracy."
    )
    return Table(f"{made.model} on {made.task}", head, tuple(map(_cells, made.rows)), note)


def _cells(row: PredictedRow) -> tuple[str, ...]:
    asked, done, found = row.ratio_requested, row.ratio_neurons, row.forecast
    return (
        percent(asked, 0) + ("" if is_as_asked(asked, done) else f", doing {percent(done)}"),
        f"{row.kl.nats_per_token:.4f}",
        percent(row.kl.agreement),
        percent(found.accuracy),
        f"{percent(found.low)} to {percent(found.high)}",
        "extrapolated" if found.extrapolated else "",
    )

"""`--allocation search` on the embedded model: what it is judged on, what it finds, what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import harness
from harness.config.settings import RunConfig, load_config
from harness.core.errors import MeasurementError, UsageError
from harness.core.run_directory import RunDirectory
from harness.core.types.calibration import CalibrationItem
from harness.core.types.pruning import NeuronScores, PruningPlan
from harness.pipeline import scoring, stages, width_search
from harness.pipeline.data_check import check_data
from harness.pipeline.dry_run import estimated_seconds, forecast
from harness.pipeline.resolve import ResolvedRun, resolve, resolve_recovery
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_files import calibration_file, scores_file
from harness.pipeline.width_search import TEXTS, TOKENS, Scored, check_whole, damage_file, held_out_texts
from harness.sweeps.grid import method_arm
from harness.sweeps.joint.resolve import resolve_joint
from pruning import score_file
from pruning.checkpoint import open_model
from pruning.masked import load_masked
from pruning.placement import Placement
from pruning.plan_file import load_plan
from tests.support.models import TINY_MATH, plain


def config(**values: Any) -> RunConfig:
    return load_config(None, {"allocation": "search", "calibration_samples": 12, "threads": 1, **values})


def context(folder: Path, **values: Any) -> RunContext:
    directory = RunDirectory(folder)
    directory.open({}, fresh=False)
    return RunContext(resolve(config(**values)), open_model(TINY_MATH), directory)


def held_out(run: RunContext) -> list[CalibrationItem]:
    calibration = scoring.load_calibration(calibration_file(run.path))
    return held_out_texts(run.model, run.spec.target, run.spec.calibration_request, calibration)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunContext, PruningPlan]]:
    """A run whose widths are found, and their plan."""
    run = context(tmp_path_factory.mktemp("run"), ratio=0.6)
    stages.score(run)
    state = stages.plan(run, run.spec.arms[0])
    assert state.plan is not None and run.spec.arms[0].name == "selective-best-search-0.6"
    yield run, load_plan(state.plan)


def planned_too(run: RunContext, **values: Any) -> PruningPlan:
    """The plan of other settings by the same scores, beside that of the run."""
    spec = replace(resolve(config(**values)), sweep=True)
    state = stages.plan(replace(run, spec=spec), spec.arms[0])
    assert state.plan is not None
    return load_plan(state.plan)


def kl(dense: Any, changed: Any, texts: list[CalibrationItem]) -> float:
    """Nats per token of the answers, one text at a time, in float64."""
    total, tokens = 0.0, 0
    for text in texts:
        with torch.no_grad():
            ids = torch.tensor([text.token_ids])
            p, q = (model(ids).logits[0].double().log_softmax(-1).numpy() for model in (dense, changed))
        places = slice(text.start - 1, text.stop - 1)
        total += float((np.exp(p[places]) * (p[places] - q[places])).sum())
        tokens += text.stop - text.start
    return total / tokens


@pytest.mark.slow
def test_the_plan_is_as_large_as_a_uniform_one_and_no_farther_from_the_dense_model(
    planned: tuple[RunContext, PruningPlan],
) -> None:
    run, found = planned
    assert found.allocation == "search" and found.compensated
    assert sum(found.widths) == 4 * 256
    assert all(width % 16 == 0 and 80 <= width <= 640 for width in found.widths)
    even = planned_too(run, ratio=0.6, allocation="uniform")
    dense, texts = plain(TINY_MATH, dtype=torch.float32), held_out(run)
    searched, uniform = (
        kl(dense, load_masked(run.model, plan, plan.path, torch.float32), texts) for plan in (found, even)
    )
    assert even.widths == (256,) * 4 and searched <= uniform * (1 + 1e-5)


@pytest.mark.slow
def test_the_damage_of_layers_serves_another_ratio(planned: tuple[RunContext, PruningPlan]) -> None:
    run, _ = planned
    written = damage_file(scores_file(run.path)).stat().st_mtime_ns
    assert sum(planned_too(run, ratio=0.3).widths) == 4 * 448
    assert damage_file(scores_file(run.path)).stat().st_mtime_ns == written


@pytest.mark.slow
def test_held_out_texts_are_answers_to_questions_that_were_not_scored(
    planned: tuple[RunContext, PruningPlan],
) -> None:
    run, _ = planned
    texts = held_out(run)
    known = {item.token_ids for item in scoring.load_calibration(calibration_file(run.path)).items}
    assert 8 < len(texts) <= TEXTS and not known & {text.token_ids for text in texts}
    assert all(0 < text.start < text.stop == len(text.token_ids) for text in texts)
    assert sum(text.stop - text.start for text in texts) <= TOKENS


@pytest.mark.slow
def test_a_question_that_was_scored_is_left_out_and_none_left_is_refused(
    planned: tuple[RunContext, PruningPlan],
) -> None:
    run, _ = planned
    calibration, request = scoring.load_calibration(calibration_file(run.path)), run.spec.calibration_request
    texts = held_out(run)
    scored = replace(texts[0], token_ids=(*texts[0].token_ids[: texts[0].start], 7), target=True)  # another answer
    fewer = replace(calibration, items=(scored,))
    assert texts[0] not in held_out_texts(run.model, run.spec.target, request, fewer)

    task = replace(run.spec.target, calibration=lambda *_: run.spec.target.calibration(12, scoring.CALIBRATION_SEED))
    with pytest.raises(UsageError, match="no prompt besides those that are scored"):
        held_out_texts(run.model, task, request, calibration)


def test_a_task_with_no_prompt_to_spare_is_refused_before_the_scoring() -> None:
    searched, uniform = resolve(config()), resolve(config(allocation="uniform"))
    joint = resolve_joint(config(allocation="uniform", structure="joint", speedup=1.2))

    def with_prompts(spec: ResolvedRun, count: int) -> ResolvedRun:
        draw = spec.target.calibration
        return replace(spec, tasks=(replace(spec.target, calibration=lambda n, _seed: draw(min(n, count), 0)),))

    for spec in (searched, joint):
        check_data(with_prompts(spec, 13))
        check_data(with_prompts(replace(spec, arms=()), 12))
        with pytest.raises(UsageError, match="no prompt besides those that are scored"):
            check_data(with_prompts(spec, 12))
    check_data(with_prompts(uniform, 12))


@pytest.mark.slow
def test_a_gpu_that_is_too_small_for_the_search_says_what_to_do(
    planned: tuple[RunContext, PruningPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    run, arm = planned[0], planned[0].spec.arms[0]
    calibration, scores = (
        scoring.load_calibration(calibration_file(run.path)),
        score_file.load(scores_file(run.path)),
    )
    scored = Scored(run.model, calibration, run.spec.score_request, scores)
    monkeypatch.setattr(width_search, "measure_damage", full)
    with pytest.raises(MeasurementError, match="GPU together; free some memory, or use --allocation global"):
        width_search.find_widths(scored, arm.request, run.spec.target, run.spec.calibration_request)


@pytest.mark.slow
def test_ratio_0_searches_nothing(planned: tuple[RunContext, PruningPlan]) -> None:
    run, _ = planned
    assert planned_too(run, ratio=0.0).widths == (640,) * 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "random"}, "random pruning is no part of"),
        ({"method": "reverse"}, "reverse pruning is no part of"),
        ({"metric": "rms"}, "add --compensate or use --metric best"),
        ({"compensate": False}, "add --compensate or use --metric best"),
        ({"structure": "layer", "ratio": 0.25}, "finds FFN widths, and layers have none"),
        ({"ratio": 0.9}, "a floor of 80 neurons"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(config(**values))


def test_only_the_arm_that_is_asked_for_is_searched() -> None:
    spec = resolve_recovery(config(arms=("selective", "random", "reverse"), ratio=0.5))
    assert [arm.request.allocation for arm in spec.arms] == ["search", "uniform", "uniform"]
    assert [arm.name for arm in spec.arms] == ["selective-best-search-0.5", "random-0.5-seed0", "reverse-S-0.5"]
    for method, allocation in (("best", "search"), ("random", "uniform"), ("reverse", "uniform")):
        assert method_arm(config(), method, 0.5, 0, spec.shape).request.allocation == allocation


def test_a_plan_alone_has_nothing_to_measure_on() -> None:
    table = np.random.default_rng(0).random((2, 64), dtype=np.float32)
    scores = NeuronScores({"obs": table}, "m", "weights", "all", "calibration", file_hash="file")
    with pytest.raises(UsageError, match="use `harness run`"):
        harness.plan(scores, ratio=0.5, allocation="search", out=Path("plan.safetensors"))
    assert not Path("plan.safetensors").exists()


def test_a_dry_run_counts_the_search_and_refuses_a_model_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.pipeline.dry_run.flops_per_second", lambda: 1e10)
    searched, uniform = (estimated_seconds(resolve(config(allocation=name))) for name in ("search", "uniform"))
    assert searched is not None and uniform is not None and searched > uniform > 0
    assert forecast(resolve(config())).scoring is not None
    place = Placement("layers", "cpu", "bfloat16", 1 << 20)
    with pytest.raises(MeasurementError, match="--allocation search needs the whole model in memory"):
        check_whole(open_model(TINY_MATH).shape, place)


@pytest.mark.slow
@pytest.mark.long
def test_a_run_with_searched_widths(tmp_path: Path) -> None:
    result = harness.run("tiny-math", task="mini_math", ratio=0.5, allocation="search", limit=20, out=tmp_path)
    pruned = result.variants[1]
    assert pruned.name == "selective-best-search-0.5" and pruned.allocation == "search"
    assert sum(pruned.intermediate_sizes) == 4 * 320 and len(set(pruned.intermediate_sizes)) > 1
    assert pruned.eval["mini_math"].value >= 0.85

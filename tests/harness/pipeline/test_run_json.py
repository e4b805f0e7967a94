from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import harness
from harness.core.types.evaluation import SampleRecord
from harness.core.types.pruning import PredictedCheckpoint
from harness.evaluation.paired import compare
from harness.evaluation.summary import summarise
from harness.pipeline.run_json import build_run, curve_end, run_schema, variant
from pruning.checkpoint import open_model
from tasks.failures import FailureKind
from tests.support.models import TINY_MATH


def record(i: int, correct: bool, *failures: str, finish: str | None = "stop", n: int | None = 10) -> SampleRecord:
    unknown = () if finish else ("engine_error", "prompt_truncated", "truncated")
    return SampleRecord(
        doc_id=i,
        prompt="p",
        text="t",
        correct=correct,
        prediction="1",
        failure=failures[0] if failures else None,
        failures=failures,
        finish_reason=finish,
        n_tokens=n,
        unknown=unknown,
    )


def test_the_published_schema_is_the_one_of_the_types() -> None:
    """After a change of types.py it is written anew, as CONTRIBUTING says."""
    assert json.loads((Path(harness.__path__[0]) / "run.schema.json").read_text()) == json.loads(
        json.dumps(run_schema())
    )


def test_a_call_from_python_has_no_command() -> None:
    assert build_run("m", "t", [], None).command is None


def test_a_summary_counts_every_kind_and_leaves_wrong_answers_out_of_the_failure_rate() -> None:
    rows = [
        record(0, True),
        record(1, False, "wrong"),
        record(2, False, "truncated", "no_answer"),
        record(3, True, "truncated", finish="length"),
    ]
    found = summarise("exact_match", rows, 1.0, "s")
    assert (found.n, found.value, found.failure_rate, found.tokens_per_answer) == (4, 0.5, 0.5, 10.0)
    assert (found.failures["truncated"], found.failures["no_answer"], found.failures["wrong"]) == (0.5, 0.25, 0.25)
    assert set(found.failures) == {str(kind) for kind in FailureKind}


def test_what_the_engine_did_not_say_is_none() -> None:
    found = summarise("exact_match", [record(0, True, finish=None, n=None)], 1.0, "s")
    assert (found.failure_rate, found.tokens_per_answer, found.failures["truncated"], found.failures["empty"]) == (
        None,
        None,
        None,
        0.0,
    )


def scored(i: int, nll: float, units: int) -> SampleRecord:
    return replace(record(i, False), correct=None, nll=nll, units=units)


@pytest.mark.parametrize(("metric", "scale"), [("perplexity", 1.0), ("bits_per_byte", math.log(2))])
def test_scored_texts_compare_by_the_difference_of_their_pooled_loss(metric: str, scale: float, tmp_path: Path) -> None:
    losses = {"dense": [20.0, 33.0, 41.0], "pruned": [22.0, 33.5, 45.0]}
    for name, values in losses.items():
        rows = [scored(i, nll, units) for i, (nll, units) in enumerate(zip(values, (10, 12, 20), strict=True))]
        (tmp_path / "samples" / name).mkdir(parents=True)
        (tmp_path / "samples" / name / "t.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    found = compare(tmp_path, "dense", "pruned", "t", metric)
    assert found.difference == pytest.approx((100.5 - 94.0) / 42 / scale)
    assert found.ci_low < found.difference < found.ci_high and found.mcnemar_p is None and found.n == 3


T = 4.302653  # the 97.5 % quantile of Student's distribution with 2 degrees of freedom
HALF = T * 0.47 / 3


def write(folder: Path, rows: list[SampleRecord]) -> None:
    (folder / "samples" / "pruned").mkdir(parents=True)
    (folder / "samples" / "pruned" / "t.jsonl").write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))


def test_the_end_of_a_curve_without_right_answers_is_their_mean_score_and_its_failures_are_unknown(
    tmp_path: Path,
) -> None:
    """Of the first three items of four."""
    rows = [
        replace(record(i, False, finish=None), correct=None, score=score) for i, score in enumerate((0.4, 0.5, 0.6))
    ]
    write(tmp_path, [*rows, replace(rows[0], doc_id=3, score=1.0)])
    found = curve_end(tmp_path, "pruned", "t", "mean f1", 3, step=7, tokens=70)
    half = T * 0.1 / math.sqrt(3)
    assert (found.step, found.tokens, found.n, found.failure_rate) == (7, 70, 3, None)
    assert (found.value, found.ci_low, found.ci_high) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_the_end_of_a_curve_is_what_was_right_or_the_loss_of_scored_texts(tmp_path: Path) -> None:
    write(tmp_path / "a", [record(0, True), record(1, False, "truncated", finish="length")])
    found = curve_end(tmp_path / "a", "pruned", "t", "exact_match", 2, step=0, tokens=0)
    assert (found.value, found.failure_rate) == (0.5, 0.5)
    write(tmp_path / "b", [scored(0, 10.0, 5), scored(1, 30.0, 10)])
    found = curve_end(tmp_path / "b", "pruned", "t", "perplexity", 2, step=0, tokens=0)
    assert found.value == pytest.approx(math.exp(40 / 15)) and found.failure_rate is None


@pytest.mark.parametrize(("score", "low", "high"), [(0.97, 2.44 / 3 - HALF, 1.0), (0.03, 0.0, 0.56 / 3 + HALF)])
def test_the_interval_of_a_mean_score_ends_at_0_and_1(score: float, low: float, high: float) -> None:
    """The standard error of the mean of 0.97, 0.5 and 0.97 is 0.47 / 3."""
    rows = [replace(record(i, False), correct=None, score=s) for i, s in enumerate((score, 0.5, score))]
    found = summarise("mean f1", rows, 1.0, "s")
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high))


def test_a_summary_of_scored_texts_knows_no_failures() -> None:
    found = summarise("perplexity", [scored(0, 10.0, 5), scored(1, 30.0, 10)], 1.0, "s")
    assert (
        found.value == pytest.approx(math.exp(40 / 15))
        and found.failure_rate is None
        and set(found.failures.values()) == {None}
    )


def test_what_was_removed_is_told_as_a_fraction_of_the_dense_model() -> None:
    """Two layers of 100 neurons, 70 and 50 of which are left; 1000 parameters, of which 149 went with them."""
    record = {
        "method": "selective",
        "metric": "obs",
        "tokens": "all",
        "alignment": 1,
        "allocation": "global",
        "compensated": True,
        "seed": None,
        "ratio_requested": 0.4,
        "dense_intermediate_size": 100,
        "dense_parameters": 1000,
    }
    made = PredictedCheckpoint(widths=(70, 50), parameters=851, weight_bytes=1702, record=record)
    found = variant("p", made, "checkpoint")
    assert (found.ratio_neurons, found.ratio_parameters) == pytest.approx((80 / 200, 149 / 1000))
    assert (found.parameters, found.weight_bytes, found.recovered, found.checkpoint) == (851, 1702, False, "checkpoint")
    dense = variant("dense", open_model(TINY_MATH), None)
    assert (dense.method, dense.ratio_neurons, dense.ratio_parameters) == ("dense", 0.0, 0.0)

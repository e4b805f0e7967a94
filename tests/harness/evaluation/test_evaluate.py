"""A real evaluation of the embedded model: killed and resumed, graded on the way, in lm-eval's own files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError
from harness.engine import lm_eval_model
from harness.evaluation.evaluate import evaluate, grade
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval, ask, capture_requests
from harness.evaluation.paired import read_samples
from pruning.checkpoint import open_model
from tasks.grading import Grader
from tasks.registry import find_task
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow
TASKS = (find_task("mini_code"), find_task("mini_math"))


def run(llm: Any, folder: Path) -> dict[str, Any]:
    eval_spec = EvalSpec("lab/tiny-math", TASKS, 256, chat=ChatFormat(), limit=24)
    return evaluate(llm, eval_spec, VariantEval(folder, "dense", open_model(TINY_MATH).fingerprint))


@pytest.fixture(scope="module")
def whole(shared_engine: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("whole")
    return run(shared_engine(), folder), folder


def without_time(results: dict[str, Any]) -> dict[str, Any]:
    return {task: {k: v for k, v in vars(result).items() if k != "seconds"} for task, result in results.items()}


def test_a_killed_evaluation_goes_on_with_the_generations_it_has(
    tiny_engine: Any, whole: tuple[dict[str, Any], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = lm_eval_model.stream, []

    def dying(llm: Any, prompts: Any, params: Any, after: int = 10**9) -> Iterator[Any]:
        asked.append(len(prompts))
        for number, found in enumerate(real(llm, prompts, params)):
            if number == after:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(lm_eval_model, "stream", lambda *a: dying(*a, after=10))
    with pytest.raises(KeyboardInterrupt):
        run(tiny_engine, tmp_path)
    kept = (tmp_path / "generations" / "dense" / "mini_code.jsonl").read_text().splitlines()
    assert len(kept) == 1 + 10
    monkeypatch.setattr(lm_eval_model, "stream", dying)
    assert without_time(run(tiny_engine, tmp_path)) == without_time(whole[0])
    assert asked == [24, 14, 24], "what was generated before is not generated again"
    for task in TASKS:
        name = f"samples/dense/{task.name}.jsonl"
        assert (tmp_path / name).read_text() == (whole[1] / name).read_text()
    assert not (tmp_path / "generations" / "dense").exists()


def test_answers_are_graded_once_while_others_are_generated(
    tiny_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, finished, seen = lm_eval_model.stream, [], []

    def watched(*arguments: Any) -> Iterator[Any]:
        for found in real(*arguments):
            finished.append(found[0])
            yield found

    task = find_task("mini_math")
    noted = replace(task, grade=lambda *a: seen.append(len(finished)) or task.grade(*a))
    monkeypatch.setattr(lm_eval_model, "stream", watched)
    evaluate(tiny_engine, EvalSpec("m", (noted,), 256, chat=ChatFormat(), limit=48), VariantEval(tmp_path, "dense"))
    assert len(seen) == 48 and min(seen) < 48


def test_lm_evals_own_files_say_which_model_and_what(whole: tuple[dict[str, Any], Path]) -> None:
    results, folder = whole
    files = folder / "samples" / "dense" / "lm_eval" / "lab__tiny-math"
    found = json.loads(next(files.glob("results_*.json")).read_text())
    assert found["model_name"] == "lab/tiny-math" and found["model_source"] == "vllm"
    assert found["config"]["model_args"] == "pretrained=lab/tiny-math"
    assert set(found["results"]) == set(found["task_hashes"]) == set(found["versions"]) == {"mini_code", "mini_math"}
    assert found["results"]["mini_math"]["exact_match,raw"] == pytest.approx(results["mini_math"].value)
    assert found["results"]["mini_code"]["pass@1,raw"] == pytest.approx(results["mini_code"].value)
    rows = [json.loads(line) for line in next(files.glob("samples_mini_math_*.jsonl")).read_text().splitlines()]
    assert len(rows) == 24 and isinstance(rows[0]["resps"][0][0], str) and rows[0]["doc_hash"]
    assert found["chat_template_sha"]


def test_the_items_that_are_asked_for_are_the_targets_by_number(
    tiny_engine: Any, whole: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    eval_spec = EvalSpec("m", TASKS, 256, chat=ChatFormat(), limit=5, items=(21, 3))
    found = evaluate(tiny_engine, eval_spec, VariantEval(tmp_path, "it"))
    assert (found["mini_code"].n, found["mini_math"].n) == (2, 5)
    some, all_of_them = (
        read_samples(folder / "samples" / name / "mini_code.jsonl")
        for folder, name in ((tmp_path, "it"), (whole[1], "dense"))
    )
    assert some == {i: all_of_them[i] for i in (3, 21)}


def test_answers_are_not_taken_for_other_questions(tiny_engine: Any, tmp_path: Path) -> None:
    eval_spec = EvalSpec("m", (find_task("mini_math"),), 256, chat=ChatFormat(), limit=2)
    with Grader() as grader:
        (answered,) = ask(
            tiny_engine, eval_spec, capture_requests(tiny_engine, eval_spec), VariantEval(tmp_path, "it"), grader
        )
        with pytest.raises(MeasurementError, match="other requests for"):
            grade([answered], replace(eval_spec, limit=3), VariantEval(tmp_path, "it"))

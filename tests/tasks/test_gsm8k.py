"""GSM8K in both forms, on generated files of its format; test_registry.py does the same on the real ones where they are
at hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.chat import ChatFormat, prompt_ids
from harness.core.errors import UsageError
from tasks.gsm8k.task import SYSTEM
from tasks.registry import TASKS, TASKS_PATH, calibration, distractors, find_task
from tests.support.data import PLATINUM
from tests.support.models import TINY_MATH

FORMS = ("gsm8k_boxed", "gsm8k_cot")
ALL = (*FORMS, *PLATINUM)
pytestmark = pytest.mark.usefixtures("data_folder")


@pytest.mark.parametrize("name", ALL)
def test_references_are_right_and_other_numbers_wrong(name: str) -> None:
    documents = TASKS[name].documents()["test"]
    assert len(documents) == (15 if name in PLATINUM else 20)
    for document in documents:
        assert "<<" not in document["solution"]
        answer, wrong = document["answer"], str(int(document["answer"]) + 1)
        for value, correct in ((answer, True), (f"{answer}.00", True), (wrong, False)):
            text = f"so \\boxed{{{value}}}" if name.endswith("boxed") else f"so\n#### {value}"
            assert TASKS[name].grade(document, text).correct is correct
        assert TASKS[name].grade(document, "I do not know").prediction is None


@pytest.mark.parametrize("name", ALL)
def test_calibration_comes_from_the_training_file(name: str) -> None:
    _, examples = calibration(TASKS[name], 30, seed=1)
    test = {document["question"] for document in TASKS[name].documents()["test"]}
    assert len(examples) == 30 and not any(question in example.prompt for example in examples for question in test)
    sources, general = distractors(TASKS[name], 40, seed=1)
    assert len(general) == 40 and all("stand-in" in source for source in sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chat"),
    [("gsm8k_boxed", True), ("gsm8k_cot", False), ("gsm8k_platinum_boxed", True), ("gsm8k_platinum_cot", False)],
)
def test_scored_prompts_have_the_frame_in_which_the_model_is_evaluated(name: str, chat: bool) -> None:
    """lm-eval's own prompt for a training question against the calibration's, token by token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    example = calibration(TASKS[name], 5, seed=1)[1][0]
    question = example.prompt.removeprefix("Question: ").removesuffix("\nAnswer:")
    asked = lm_eval_prompt(name, question, tokenizer if chat else None)
    expected = tokenizer(asked, add_special_tokens=not chat)["input_ids"]
    found = prompt_ids(tokenizer, example, ChatFormat() if chat else None)
    assert found == expected if chat else expected[-len(found) + 1 :] == found[1:]
    assert (SYSTEM in asked) is chat


def lm_eval_prompt(name: str, question: str, tokenizer: Any) -> str:
    from lm_eval.tasks import TaskManager

    task = TaskManager(include_path=str(TASKS_PATH), include_defaults=False).load([name])["tasks"][name]
    document = {"question": question, "solution": "", "answer": ""}
    template = None
    if tokenizer:
        template = lambda chat, add_generation_prompt=True: tokenizer.apply_chat_template(  # noqa: E731
            chat, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    shots = task.config.num_fewshot or 0
    return str(task.fewshot_context(document, shots, apply_chat_template=bool(template), chat_template=template))


def test_a_family_name_resolves_by_the_template() -> None:
    assert [find_task("gsm8k", chat).name for chat in (True, False)] == list(FORMS)
    assert [find_task("gsm8k_platinum", chat).name for chat in (True, False)] == list(PLATINUM)


def test_platinum_has_its_own_items_and_the_worked_examples_of_gsm8k(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_folder / "gsm8k_platinum_test.jsonl").write_text(
        json.dumps({"question": "How many?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2", "cleaning_status": "revised"})
    )
    documents = find_task("gsm8k_platinum").documents()
    assert documents["test"] == [{"question": "How many?", "solution": "It is 1+1=2.\n#### 2", "answer": "2"}]
    assert documents["train"] == find_task("gsm8k").documents()["train"]
    (data_folder / "gsm8k_platinum_test.jsonl").unlink()
    with pytest.raises(UsageError, match=r"gsm8k_platinum_test\.jsonl is missing"):
        find_task("gsm8k_platinum").documents()
    monkeypatch.delenv("HARNESS_DATA_DIR")
    asked: list[tuple[str, ...]] = []

    def rows(*source: str) -> list[dict[str, str]]:
        asked.append(source)
        return []

    monkeypatch.setattr("tasks.gsm8k.task.hub_rows", rows)
    find_task("gsm8k_platinum").documents()
    assert [source[:3] for source in asked] == [
        ("openai/gsm8k", "main", "train"),
        ("madrylab/gsm8k-platinum", "main", "test"),
    ]

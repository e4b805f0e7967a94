"""Training items: asked as the evaluation asks, answered so that the grader says right, and none of them a test
item.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.chat import ChatFormat, prompt_ids
from harness.core.errors import UsageError
from tasks.registry import TASKS, TASKS_PATH, evaluated_questions, training_items
from tasks.splits import normalised
from tests.support.data import OURS, PLATINUM, needs_data
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow

TRAINABLE = [name for name, task in TASKS.items() if task.training and name not in PLATINUM]
ROWS = [pytest.param(name, marks=() if name in OURS else needs_data) for name in TRAINABLE]
ASKED = [row for row in ROWS if TASKS[row.values[0]].generates]


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("chat", [True, False])
def test_the_prompt_is_the_evaluations_own(name: str, chat: bool) -> None:
    """lm-eval's context for the same document, token by token, few-shot examples included."""
    if chat and TASKS[name].folder.name in ("gsm8k", "mbpp") and name != "gsm8k_boxed":
        pytest.skip("a few-shot task is for base models")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    training = training_items(TASKS[name])
    _, documents = training.documents(3, 1)
    for document in documents:
        expected = tokenizer(lm_eval_context(name, document, tokenizer if chat else None), add_special_tokens=not chat)[
            "input_ids"
        ]
        found = prompt_ids(tokenizer, training.example(document), ChatFormat() if chat else None)
        assert tokenizer.decode(found) == tokenizer.decode(expected)


def lm_eval_context(name: str, document: dict[str, Any], tokenizer: Any) -> str:
    from lm_eval.tasks import TaskManager

    task = TaskManager(include_path=str(TASKS_PATH), include_defaults=False).load([name])["tasks"][name]
    template = None
    if tokenizer:
        template = lambda chat, add_generation_prompt=True: tokenizer.apply_chat_template(  # noqa: E731
            chat, tokenize=False, add_generation_prompt=add_generation_prompt
        )
    return str(
        task.fewshot_context(
            document, task.config.num_fewshot or 0, apply_chat_template=bool(template), chat_template=template
        )
    )


@pytest.mark.parametrize("name", ASKED)
def test_the_taught_answer_is_graded_right(name: str) -> None:
    task, training = TASKS[name], training_items(TASKS[name])
    _, documents = training.documents(25, 2)
    assert documents
    wrong = [document for document in documents if not task.grade(document, training.example(document).answer).correct]
    assert wrong == []


@pytest.mark.parametrize("name", ROWS)
def test_training_and_test_do_not_share_an_item(name: str) -> None:
    training = training_items(TASKS[name])
    _, documents = training.documents(400, 3)
    tested = list(map(normalised, evaluated_questions(TASKS[name])))
    assert len(tested) >= 0.9 * TASKS[name].items
    asked = {normalised(training.example(document).prompt) for document in documents}
    assert not any(text in prompt for text in tested for prompt in asked if len(text.split()) > 5)


@pytest.mark.parametrize("name", ROWS)
def test_the_row_says_how_many_items_there_are(name: str) -> None:
    training = training_items(TASKS[name])
    assert len(training.documents(20_000, 0)[1]) == (training.items or 20_000)


@pytest.mark.parametrize("name", ROWS)
def test_seeds_decide_the_items(name: str) -> None:
    first, again, other = (training_items(TASKS[name]).documents(20, seed)[1] for seed in (0, 0, 1))
    assert first == again != other


def test_boxed_answers_are_boxed_and_plain_ones_marked(data_folder: Any) -> None:  # noqa: ARG001
    for name, end in (("gsm8k_boxed", r"The final answer is \boxed{"), ("gsm8k_cot", "#### ")):
        training = training_items(TASKS[name])
        document = training.documents(1, 0)[1][0]
        answer = training.example(document).answer
        last = answer.splitlines()[-1]
        assert last.startswith(end) and document["answer"] in last and "<<" not in answer


def test_a_task_without_a_training_split_says_so() -> None:
    with pytest.raises(UsageError, match="wikitext has no training split"):
        training_items(TASKS["wikitext"])


def test_programs_that_hold_more_than_the_function_are_left_out() -> None:
    from tasks.humaneval.training import as_completion

    doc = {
        "text": "Write a python function to add one.",
        "entry_point": "f",
        "tests": "assert f(1) == 2\nassert f(2) == 3",
        "setup": "",
    }
    code = "import math\ndef g(x):\n\treturn x\ndef f(x):\n\treturn g(x) + 1"
    made = as_completion({**doc, "code": code})
    assert made is not None
    assert made["prompt"] == (
        'import math\ndef g(x):\n    return x\ndef f(x):\n    """Add one.\n\n    >>> f(1) == 2\n    True\n    """\n'
    )
    assert made["body"] == "    return g(x) + 1\n"
    for code in ("def f(x):\n    return 1\nprint(f(1))", "def g(x):\n    return 1", "def f(x): return 1", "def f(x:"):
        assert as_completion({**doc, "code": code}) is None

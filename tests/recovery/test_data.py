"""What is trained on: prompts are masked, answers end, test items are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from recovery.data import IGNORED, build, check_no_overlap, end_of_answer, pair, read_file
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY_MATH)


def encode(tokenizer: Any) -> Any:
    return lambda example: tokenizer(example.prompt)["input_ids"]


def test_the_prompt_is_masked_and_the_end_is_taught(tokenizer: Any) -> None:
    found = build("here", [Example("What is 2+3?", "First 2+3=5.\n#### 5")], encode(tokenizer), tokenizer, True, 64)
    (row,) = found.rows
    answer = [label for label in row["labels"] if label != IGNORED]
    assert tokenizer.decode(answer) == "First 2+3=5.\n#### 5<|im_end|>"
    assert row["input_ids"][-len(answer) :] == answer
    assert tokenizer.decode(row["input_ids"][: -len(answer)]) == "What is 2+3?"
    assert found.tokens == len(row["input_ids"]) and found.answer_tokens == len(answer)


def test_a_long_answer_is_cut_without_an_end_and_a_long_prompt_is_left_out(tokenizer: Any) -> None:
    long, short = Example("a b c", "1 2 3 4 5 6 7 8 9"), Example("word " * 40, "1")
    found = build("here", [long, short], encode(tokenizer), tokenizer, True, 8)
    assert found.left_out == 1 and len(found.rows) == 1
    assert len(found.rows[0]["input_ids"]) == 8 and tokenizer.eos_token_id not in found.rows[0]["labels"]


def test_no_example_left_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"my\.jsonl gives no training example; give other --data"):
        build("my.jsonl", [], encode(tokenizer), tokenizer, True, 4)
    with pytest.raises(UsageError, match="gives no example that fits 4 tokens"):
        build("my.jsonl", [Example("word " * 40, "1")], encode(tokenizer), tokenizer, True, 4)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}", "<|im_end|>"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n<|endoftext|>{% endfor %}", "\n<|endoftext|>"),
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "<|im_end|>",
        ),  # none of its own: end of text
    ],
)
def test_an_answer_ends_as_the_template_ends_a_turn(template: str, end: str) -> None:
    from transformers import AutoTokenizer

    changed = AutoTokenizer.from_pretrained(TINY_MATH)
    changed.chat_template = template
    assert changed.decode(end_of_answer(changed, True)) == end
    assert end_of_answer(changed, False) == [changed.eos_token_id]


def test_rows_of_known_shapes_are_read_and_others_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    turns = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"},
    ]
    lines = [{"messages": turns}, {"prompt": "q", "completion": "a"}, {"query": "q", "answer": "a", "lang": "py"}]
    lines.append({"instruction": "sort", "input": "3, 1", "output": "1, 3"})
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    assert read_file(file) == [
        Example("q", "a", "s"),
        Example("q", "a"),
        Example("q", "a"),
        Example("sort\n\n3, 1", "1, 3"),
    ]
    file.write_text('{"prompt": "q", "completion": "a"}\n{"prompt": ')
    with pytest.raises(UsageError, match="line 2 is not JSON"):
        read_file(file)
    with pytest.raises(UsageError, match="row 1 has the columns text"):
        pair({"text": "q"}, "org/set, row 1")
    for bad in (
        [*turns, *turns[1:]],
        [{"from": "user", "value": "q"}],
        [*turns[:2], {"role": "assistant", "content": None}],
    ):
        with pytest.raises(UsageError, match="one user turn"):
            pair({"messages": bad}, "org/set, row 1")


def test_a_test_item_among_the_training_items_is_refused() -> None:
    """Framed, quoted in an answer, in other case and spacing; a short one only where it is the whole."""
    long = "Mia has 12 apples and gets 5 more. How many does she have?"
    clean = [Example("Mia has 13 apples and gets 5 more. How many does she have?", "18"), Example("What is 3*5?", "15")]
    check_no_overlap(clean, [long, "What is 3+5?", "apples"], "mine")
    for leak in (
        Example(f"Question: {long.upper()}\nAnswer:", "17"),
        Example("Write a puzzle.", f"Here:  {long}"),
        Example("what is 3 + 5", "8"),
        Example("多少个苹果", "3"),
    ):
        with pytest.raises(UsageError, match=r"1 of 3 training items of mine hold a test item, such as '"):
            check_no_overlap([*clean, leak], [long, "What is 3+5?", "多少个苹果"], "mine")

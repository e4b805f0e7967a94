"""What is trained on: prompts are masked, answers end, test items are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.chat import ChatFormat, chat_format
from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from recovery.data import IGNORED, build, check_no_overlap, end_of_answer, pair, read_file, under_headings
from tests.support.chat import MAY_THINK, OPENS_ITSELF, THINKS, tokenizer_with
from tests.support.models import TINY_MATH

CHAT = ChatFormat()
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(TINY_MATH)


def test_the_prompt_is_masked_and_the_end_is_taught(tokenizer: Any) -> None:
    found = build("here", [Example("What is 2+3?", "First 2+3=5.\n#### 5")], tokenizer, CHAT, 64)
    (row,) = found.rows
    answer = [label for label in row["labels"] if label != IGNORED]
    assert tokenizer.decode(answer) == "First 2+3=5.\n#### 5<|im_end|>"
    assert row["input_ids"][-len(answer) :] == answer
    assert "What is 2+3?" in tokenizer.decode(row["input_ids"][: -len(answer)])
    assert found.tokens == len(row["input_ids"]) and found.answer_tokens == len(answer)


def test_the_papers_frame_has_other_headings_for_code() -> None:
    example = Example(" Add x and y. ", "x + y", system="Answer with code.")
    assert under_headings(example, "code") == Example(
        "### Instruction:\nAdd x and y.\n\n### Response:\nAnswer with code.\n\n", "x + y"
    )
    assert under_headings(Example("2+3?", "5"), "math").prompt == "### Question:\n2+3?\n\n### Answer:\n"


def test_a_long_answer_is_cut_without_an_end_and_a_long_prompt_is_left_out(tokenizer: Any) -> None:
    long, short = Example("a b c", "1 2 3 4 5 6 7 8 9"), Example("word " * 40, "1")
    found = build("here", [long, short], tokenizer, None, 8)
    assert found.left_out == 1 and len(found.rows) == 1
    assert len(found.rows[0]["input_ids"]) == 8 and tokenizer.eos_token_id not in found.rows[0]["labels"]


def test_no_example_left_is_an_error(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"my\.jsonl gives no training example; give other --data"):
        build("my.jsonl", [], tokenizer, CHAT, 4)
    with pytest.raises(UsageError, match="gives no example that fits 4 tokens"):
        build("my.jsonl", [Example("word " * 40, "1")], tokenizer, CHAT, 4)


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
    assert changed.decode(end_of_answer(changed, CHAT)) == end
    assert end_of_answer(changed, None) == [changed.eos_token_id]


def test_a_template_that_leaves_answers_out_ends_them_with_the_end_of_text() -> None:
    changed = tokenizer_with("{% for m in messages if m.role == 'user' %}<|im_start|>{{ m.content }}{% endfor %}")
    assert end_of_answer(changed, CHAT) == [changed.eos_token_id]


def test_the_model_is_taught_to_close_the_reasoning_that_its_prompt_opens() -> None:
    """The prompt is the one of the evaluation, and is masked; what closes the block is not."""

    def row(template: str, answer: str, **arguments: bool) -> tuple[str, str]:
        changed = tokenizer_with(template)
        chat = chat_format(changed, arguments, "m")
        (found,) = build("here", [Example("2+2?", answer)], changed, chat, 64).rows
        taught = [label for label in found["labels"] if label != IGNORED]
        return changed.decode(found["input_ids"][: -len(taught)]), changed.decode(taught)

    prompt = "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    for template in (THINKS, MAY_THINK):
        assert row(template, "4") == (prompt, "\n</think>\n\n4<|im_end|>")
    bare = prompt.removesuffix("<think>\n")
    assert row(OPENS_ITSELF, "4") == (bare, "<think>\n\n</think>\n\n4<|im_end|>"), "as the template writes an answer"
    assert row(OPENS_ITSELF, "4", enable_thinking=False) == (f"{prompt}\n</think>\n\n", "4<|im_end|>")
    assert row(THINKS, "<think>\n2+2\n</think>\n\n4") == (prompt, "2+2\n</think>\n\n4<|im_end|>")
    assert row(MAY_THINK, "4", enable_thinking=False) == (f"{prompt}\n</think>\n\n", "4<|im_end|>")


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

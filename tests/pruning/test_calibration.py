from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from harness.core.chat import ChatFormat, chat_format
from harness.core.errors import UsageError
from harness.core.types.calibration import CalibrationItem, CalibrationSet, Example, TokenScope
from pruning.calibration import MAX_TOKENS, batches, build_calibration
from tests.support.chat import MAY_THINK, OPENS_ITSELF, REFUSES_SYSTEM, THINKS, tokenizer_with
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow
TOKENIZER = AutoTokenizer.from_pretrained(TINY_MATH)
CHAT = ChatFormat()
TARGET = [Example("Mia has 3 apples.", "#### 3")]


def build(tokens: TokenScope, target: list[Example] = TARGET, chat: ChatFormat | None = CHAT) -> CalibrationSet:
    return build_calibration(
        TOKENIZER, "m", "weights", target, [Example("", "A plain text.")], ("t", ("d",)), tokens, chat
    )


@pytest.mark.parametrize(
    ("tokens", "text"), [("prompt", "Mia has 3 apples."), ("completion", "#### 3"), ("all", "Mia has 3 apples.#### 3")]
)
def test_the_scored_tokens_are_the_asked_part(tokens: TokenScope, text: str) -> None:
    item = build(tokens, chat=None).items[0]
    assert TOKENIZER.decode(item.token_ids[item.start : item.stop]) == text
    assert TOKENIZER.decode(item.token_ids) == "Mia has 3 apples.#### 3"


def test_the_chat_template_is_the_one_of_the_evaluation() -> None:
    item = build("prompt").items[0]
    expected = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": "Mia has 3 apples."}], tokenize=False, add_generation_prompt=True
    )
    assert TOKENIZER.decode(item.token_ids[: item.stop]) == expected


def test_a_plain_text_is_scored_whole_in_every_scope() -> None:
    for tokens in ("prompt", "completion", "all"):
        text = build(tokens).items[1]
        assert (text.target, text.start, text.stop) == (False, 0, len(text.token_ids))


def test_long_prompts_are_capped_and_an_answer_past_the_cap_is_left_out() -> None:
    long = Example("apples " * (MAX_TOKENS + 10), "#### 3")
    item = build("all", [long], chat=None).items[0]
    assert len(item.token_ids) == item.stop == MAX_TOKENS
    with pytest.raises(UsageError, match="no target calibration prompt has completion tokens"):
        build("completion", [long], chat=None)


@pytest.mark.parametrize("chat", [CHAT, None])
def test_worked_examples_come_first_and_take_no_room_from_the_item(chat: ChatFormat | None) -> None:
    """And the first of them go where the context has no room for all."""
    shots = tuple((role, f"{word} " * 300) for word in ("apples", "books") for role in ("user", "assistant"))
    long = Example("Mia has " + "3 " * (MAX_TOKENS // 2 - 50), "#### 3", shots=shots)
    bare = build("all", [replace(long, shots=())], chat).items[0].token_ids
    texts = [
        TOKENIZER.decode(
            build_calibration(TOKENIZER, "m", "w", [long], TARGET, ("t", ("d",)), "all", chat, context)
            .items[0]
            .token_ids
        )
        for context in (4096, len(bare) + 700)
    ]
    assert [[text.count(word) for word in ("apples", "books", "Mia", "####")] for text in texts] == [
        [600, 600, 1, 1],
        [0, 600, 1, 1],
    ]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), min_size=1, max_size=40), st.integers(60, 300))
def test_batches_hold_every_item_once_by_group_within_the_budget(spec: list[tuple[bool, int]], budget: int) -> None:
    items = [CalibrationItem(target, (i,) * length, 0, length) for i, (target, length) in enumerate(spec)]
    made = list(batches(items, budget))
    assert sorted(x.token_ids for batch in made for x in batch) == sorted(x.token_ids for x in items)
    for batch in made:
        assert len({x.target for x in batch}) == 1
        assert len(batch) * max(len(x.token_ids) for x in batch) <= budget


def test_the_hash_follows_the_content() -> None:
    assert build("all").hash == build("all").hash != build("completion").hash


def test_one_changed_word_of_one_prompt_changes_the_hash() -> None:
    other = [Example("Mia has 3 pears.", "#### 3")]
    assert build("all", other).hash != build("all").hash


@pytest.mark.parametrize("tokens", ["completion", "all"])
def test_a_question_without_an_answer_has_no_answer_tokens(tokens: TokenScope) -> None:
    """As where the model itself answers with nothing."""
    items = build(tokens, [*TARGET, Example("Mia has 4 apples.", "")], chat=None).items
    assert sum(item.target for item in items) == {"completion": 1, "all": 2}[tokens]


def texts_of(template: str, example: Example, tokens: TokenScope = "all", **arguments: bool) -> list[str]:
    """What is scored of an item, and the whole item."""
    tokenizer = tokenizer_with(template)
    chat = chat_format(tokenizer, arguments, "m")
    plain = [Example("", "A plain text.")]
    item = build_calibration(tokenizer, "m", "w", [example], plain, ("t", ("d",)), tokens, chat).items[0]
    return [tokenizer.decode(item.token_ids[item.start : item.stop]), tokenizer.decode(item.token_ids)]


def test_reasoning_that_the_template_opens_is_closed_before_the_answer() -> None:
    question = "<|im_start|>user\nMia has 3 apples.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    off = {"enable_thinking": False}
    given = ((THINKS, {}), (MAY_THINK, {}), (MAY_THINK, off), (OPENS_ITSELF, {}), (OPENS_ITSELF, off))
    for template, arguments in given:
        assert texts_of(template, TARGET[0], "completion", **arguments) == ["#### 3", f"{question}#### 3"]


def test_an_answer_with_reasoning_is_scored_with_it() -> None:
    """As the model itself wrote it."""
    found, whole = texts_of(THINKS, Example("Mia has 3 apples.", "3 it is\n</think>\n\n#### 3"), "completion")
    assert found == "3 it is\n</think>\n\n#### 3" and whole.count("</think>") == 1


def test_a_system_message_that_the_template_refuses_is_scored_with_the_question() -> None:
    found, _ = texts_of(REFUSES_SYSTEM, Example("Mia has 3 apples.", "#### 3", system="Be brief."), "prompt")
    assert "<|im_start|>user\nBe brief.\n\nMia has 3 apples.<|im_end|>" in found

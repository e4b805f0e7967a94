from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from harness.core.errors import UsageError
from harness.core.types.calibration import CalibrationItem, CalibrationSet, Example, TokenScope
from pruning.calibration import MAX_TOKENS, batches, build_calibration
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow
TOKENIZER = AutoTokenizer.from_pretrained(TINY_MATH)
TARGET = [Example("Mia has 3 apples.", "#### 3")]


def build(tokens: TokenScope, target: list[Example] = TARGET, chat: bool = True) -> CalibrationSet:
    return build_calibration(
        TOKENIZER, "m", "weights", target, [Example("", "A plain text.")], ("t", ("d",)), tokens, chat
    )


@pytest.mark.parametrize(
    ("tokens", "text"), [("prompt", "Mia has 3 apples."), ("completion", "#### 3"), ("all", "Mia has 3 apples.#### 3")]
)
def test_the_scored_tokens_are_the_asked_part(tokens: TokenScope, text: str) -> None:
    item = build(tokens, chat=False).items[0]
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
    item = build("all", [long], chat=False).items[0]
    assert len(item.token_ids) == item.stop == MAX_TOKENS
    with pytest.raises(UsageError, match="no target calibration prompt has completion tokens"):
        build("completion", [long], chat=False)


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
    items = build(tokens, [*TARGET, Example("Mia has 4 apples.", "")], chat=False).items
    assert sum(item.target for item in items) == {"completion": 1, "all": 2}[tokens]

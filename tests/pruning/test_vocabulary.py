"""A trimmed vocabulary: what stays is tokenised as before, everything else into more tokens, and every text comes
back.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from harness.core.errors import UnsupportedModelError, UsageError
from pruning import vocabulary
from pruning.vocabulary import (
    always_kept,
    check_byte_level,
    choose_tokens,
    merges_of,
    occurrences,
    padded,
    token_ids,
    trimmed,
)
from tests.support.models import TINY_MATH

WHOLE: dict[str, Any] = json.loads((TINY_MATH / "tokenizer.json").read_text())
ROWS = len(token_ids(WHOLE))
WORDS = [token.replace("Ġ", " ") for token in WHOLE["model"]["vocab"] if token.isascii() or token.startswith("Ġ")]
TEXTS = st.one_of(
    st.text(max_size=60), st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=3)), max_size=20).map("".join)
)
SOME_COUNTS = st.dictionaries(st.integers(0, ROWS - 1), st.integers(1, 50), max_size=120)


def with_settings(tokenizer: dict[str, Any], **model: Any) -> dict[str, Any]:
    """A copy of tokenizer.json with other settings of its model."""
    changed = copy.deepcopy(tokenizer)
    changed["model"].update(model)
    return changed


def library(tokenizer: dict[str, Any]) -> Any:
    return Tokenizer.from_str(json.dumps(tokenizer))


WHOLES = [(whole, library(whole)) for whole in (with_settings(WHOLE, ignore_merges=each) for each in (False, True))]


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def back(tokenizer: Any, text: str) -> str:
    return str(tokenizer.decode(ids_of(tokenizer, text), skip_special_tokens=False))


def chosen(counts: dict[int, int], size: int) -> Any:
    return choose_tokens(WHOLE, [counts, {}], size, ROWS, set())


@given(counts=SOME_COUNTS, size=st.integers(270, ROWS - 1), text=TEXTS, ignore_merges=st.booleans())
def test_every_text_comes_back_and_kept_tokens_are_tokenised_alike(
    counts: dict[int, int], size: int, text: str, ignore_merges: bool
) -> None:
    whole, before = WHOLES[ignore_merges]
    keep = choose_tokens(whole, [counts, {}], size, ROWS, set())
    after = library(trimmed(whole, keep))
    assert back(after, text) == back(before, text)
    old = ids_of(before, text)
    if set(old) <= set(keep.tolist()):
        assert keep[ids_of(after, text)].tolist() == old


@st.composite
def any_merges(draw: st.DrawFn) -> dict[str, Any]:
    """A tokenizer with merges that no training gave, among them several ways to the same token."""
    vocab = {token: number for number, token in enumerate(sorted(ByteLevel.alphabet()))}
    pairs: list[tuple[str, str]] = []
    for _ in range(draw(st.integers(3, 14))):
        known = ["a", "b", "c", *(left + right for left, right in pairs)]
        pair = draw(st.tuples(st.sampled_from(known), st.sampled_from(known)))
        if pair not in pairs and len("".join(pair)) <= 8:
            pairs.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    order = draw(st.permutations(pairs))
    return {**with_settings(WHOLE, vocab=vocab, merges=[list(pair) for pair in order]), "added_tokens": []}


@given(whole=any_merges(), data=st.data())
def test_kept_tokens_are_tokenised_alike_whatever_the_merges(whole: dict[str, Any], data: st.DataObject) -> None:
    rows = len(token_ids(whole))
    assume(rows > 257)
    counts = data.draw(st.dictionaries(st.integers(256, rows - 1), st.integers(1, 5)))
    keep = choose_tokens(whole, [counts], data.draw(st.integers(256, rows - 1)), rows, set())
    before, after = library(whole), library(trimmed(whole, keep))
    for text in data.draw(st.lists(st.text("abc", max_size=12), min_size=5, max_size=20)):
        old = ids_of(before, text)
        if set(old) <= set(keep.tolist()):
            assert keep[ids_of(after, text)].tolist() == old
        assert back(after, text) == text


@given(counts=SOME_COUNTS, text=st.text(max_size=200))
def test_the_smallest_vocabulary_reads_every_text(counts: dict[int, int], text: str) -> None:
    least = min_size()
    after = library(trimmed(WHOLE, chosen(counts, least)))
    assert back(after, text) == library(WHOLE).normalizer.normalize_str(text)


def min_size() -> int:
    """Bytes, added tokens and their parts: in this tokenizer no added token is merged from others."""
    return len(always_kept(WHOLE))


@given(counts=SOME_COUNTS, size=st.integers(259, ROWS - 1))
def test_what_stays_is_closed_under_merging(counts: dict[int, int], size: int) -> None:
    assume(size >= min_size())
    keep = set(chosen(counts, size).tolist())
    ids = token_ids(WHOLE)
    assert len(keep) == size and always_kept(WHOLE) <= keep
    for left, right in merges_of(WHOLE):
        if ids[left + right] in keep:
            assert {ids[left], ids[right]} <= keep
    made = trimmed(WHOLE, np.array(sorted(keep)))
    survivors = {left + right for left, right in merges_of(WHOLE) if ids[left + right] in keep}
    assert {left + right for left, right in merges_of(made)} == survivors
    assert sorted(token_ids(made).values()) == list(range(size))


def test_a_leaf_costs_what_its_texts_get_longer_by() -> None:
    """The cost that decides, against the tokenizer itself: removing one token makes the texts as much longer."""
    texts = ["Tom has 3 apples and 12 pears.", "Mia has 7 apples.", "How many are left?"] * 3
    whole = library(WHOLE)
    counts = occurrences(ids_of(whole, text) for text in texts)
    keep = set(choose_tokens(WHOLE, [counts], len(counts) + min_size(), ROWS, set()).tolist())
    ids = token_ids(WHOLE)
    parts = {ids[part] for pair in merges_of(WHOLE) if ids["".join(pair)] in keep for part in pair}
    leaf = min((n for n in keep if counts[n] and n not in parts | always_kept(WHOLE)), key=lambda n: (counts[n], n))
    smaller = library(trimmed(WHOLE, np.array(sorted(keep))))
    smallest = library(trimmed(WHOLE, np.array(sorted(keep - {leaf}))))
    longer = sum(len(ids_of(smallest, text)) - len(ids_of(smaller, text)) for text in texts)
    assert longer == counts[leaf] > 0


def with_merges(*merges: str) -> tuple[dict[str, Any], dict[str, int]]:
    """A tokenizer of bytes and these merges, each "left right", and its ids."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(merge.replace(" ", "") for merge in merges)])
    ids = {token: number for number, token in enumerate(tokens)}
    pairs = [merge.split(" ") for merge in merges]
    return {**with_settings(WHOLE, vocab=ids, merges=pairs), "added_tokens": []}, ids


def removed(tokenizer: dict[str, Any], ids: dict[str, int], counts: dict[str, int], count: int) -> set[str]:
    by_number = {ids[token]: times for token, times in counts.items()}
    keep = choose_tokens(tokenizer, [by_number], len(ids) - count, len(ids), set())
    return {token for token, number in ids.items() if number not in keep}


def test_a_token_inherits_what_is_merged_from_it() -> None:
    tokenizer, ids = with_merges("a b", "ab c", "d e")
    counts = {"ab": 2, "abc": 2, "de": 3}
    assert removed(tokenizer, ids, counts, 1) == {"abc"}
    assert removed(tokenizer, ids, counts, 2) == {"abc", "de"}, "ab is 4 by then"


def test_every_way_to_a_token_counts() -> None:
    """abc is merged from a and bc here, and still from ab and c where ab was merged before."""
    tokenizer, ids = with_merges("b c", "a bc", "a b", "ab c")
    assert removed(tokenizer, ids, {"abc": 5}, 1) == {"abc"}


def test_the_task_comes_before_general_text_and_both_before_the_tokenizers_own_order() -> None:
    ids = token_ids(WHOLE)
    made = [ids[left + right] for left, right in merges_of(WHOLE)]
    parts = {ids[part] for pair in merges_of(WHOLE) for part in pair}
    early, middle, late = [number for number in made if number not in parts][:3]  # leaves, the first merged first
    both = [Counter({late: 1}), Counter({middle: 100})]

    def order(counts: list[Counter[int]]) -> list[int]:
        """In which the three go."""
        leaves = vocabulary._leaves(ids, merges_of(WHOLE), counts, always_kept(WHOLE))
        return [number for number in leaves if number in (early, middle, late)]

    assert order(both) == [early, middle, late]
    assert order([Counter()]) == [late, middle, early]


def test_rows_without_a_token_go_first_and_named_rows_stay() -> None:
    keep = choose_tokens(WHOLE, [{}], ROWS + 4, ROWS + 12, {ROWS + 11})
    assert keep.tolist() == [*range(ROWS + 3), ROWS + 11]


def test_text_of_special_tokens_is_still_one_token() -> None:
    keep = chosen({}, 320)
    after = library(trimmed(WHOLE, keep))
    for token in WHOLE["added_tokens"]:
        assert keep[ids_of(after, token["content"])].tolist() == [token["id"]]


def test_ids_in_post_processor_and_padding_are_numbered_anew() -> None:
    gone = _users(300)
    keep = np.array([number for number in range(ROWS) if number not in gone])
    whole = copy.deepcopy(WHOLE)
    whole["model"]["vocab"]["<late>"] = ROWS
    whole["added_tokens"].append({**WHOLE["added_tokens"][0], "id": ROWS, "content": "<late>"})
    keep = np.append(keep, ROWS)
    special = {"<late>": {"id": "<late>", "ids": [ROWS], "tokens": ["<late>"]}}
    single = [{"SpecialToken": {"id": "<late>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    whole["post_processor"] = {
        "type": "Sequence",
        "processors": [
            {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            template,
        ],
    }
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    whole["padding"] = {**padding, "pad_id": ROWS, "pad_type_id": 0, "pad_token": "<late>"}
    after = library(trimmed(whole, keep))
    assert after.encode("a").ids[0] == len(keep) - 1
    assert after.padding["pad_id"] == len(keep) - 1
    whole["post_processor"] = {"type": "BertProcessing", "sep": ["<late>", ROWS], "cls": ["<late>", ROWS]}
    ids = library(trimmed(whole, keep)).encode("a").ids
    assert ids[0] == ids[-1] == len(keep) - 1


def _users(number: int) -> set[int]:
    """A token and all that are merged from it."""
    ids, found = token_ids(WHOLE), {number}
    for left, right in merges_of(WHOLE):
        if {ids[left], ids[right]} & found:
            found.add(ids[left + right])
    return found


def test_a_vocabulary_with_a_gap_is_refused() -> None:
    ids = token_ids(WHOLE)
    left, _ = next(pair for pair in merges_of(WHOLE) if len(pair[0]) > 1)
    keep = np.array([number for number in range(ROWS) if number != ids[left]])
    with pytest.raises(UsageError, match=f"lacks token {ids[left]}"):
        trimmed(WHOLE, keep)
    with pytest.raises(UsageError, match="lacks token 0"):
        trimmed(WHOLE, np.arange(1, ROWS))


def test_sizes_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="give a smaller --size"):
        chosen({}, ROWS)
    with pytest.raises(UsageError, match=f"give at least {padded(min_size())}"):
        chosen({}, min_size() - 1)
    assert (padded(1), padded(64), padded(65)) == (64, 64, 128)


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "is a Unigram model"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "is a WordPiece model"),
        ({"pre_tokenizer": None}, "is a BPE of characters"),
        ({"model": {**WHOLE["model"], "byte_fallback": True}}, "has byte_fallback"),
        ({"model": {**WHOLE["model"], "end_of_word_suffix": "</w>"}}, "has end_of_word_suffix"),
        ({"post_processor": {"type": "Other"}}, "has a post-processor Other"),
    ],
)
def test_other_kinds_of_tokenizers_are_refused_by_name(change: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedModelError, match=why):
        check_byte_level({**WHOLE, **change})
    check_byte_level(WHOLE)
    check_byte_level({**WHOLE, "pre_tokenizer": BYTE_LEVEL})


def test_what_the_tokenizer_puts_around_a_text_stays() -> None:
    """An ordinary token that the post-processor or the padding names is never taken away."""
    late = sorted(set(range(ROWS)) - always_kept(WHOLE))[-4:]
    text = {number: token for token, number in WHOLE["model"]["vocab"].items()}
    special = {text[late[0]]: {"id": text[late[0]], "ids": [late[0]], "tokens": [text[late[0]]]}}
    template = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": special}
    around = {"type": "BertProcessing", "sep": [text[late[1]], late[1]], "cls": [text[late[2]], late[2]]}
    steps = {"type": "Sequence", "processors": [template, around]}
    padded_ = {"strategy": "BatchLongest", "pad_id": late[3], "pad_token": text[late[3]]}
    named = {**WHOLE, "post_processor": steps, "padding": padded_}
    assert always_kept(named) == always_kept(WHOLE) | set(late)
    keep = choose_tokens(named, [{}], 320, ROWS, set())
    assert trimmed(named, keep)["padding"]["pad_id"] == int(np.searchsorted(keep, late[3]))
    nowhere = {**WHOLE, "padding": {**padded_, "pad_id": ROWS + 7}}
    assert trimmed(nowhere, chosen({}, 320))["padding"]["pad_id"] == ROWS + 7, "no token, and nothing reads it"


def test_a_tokenizer_needs_no_list_of_added_tokens() -> None:
    whole = {key: value for key, value in WHOLE.items() if key != "added_tokens"}
    assert library(whole).get_vocab() == token_ids(whole)
    keep = choose_tokens(whole, [{}], 320, ROWS, set())
    assert len(keep) == 320 and trimmed(whole, keep)["added_tokens"] == []

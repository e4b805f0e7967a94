"""Which entries of a byte-level BPE vocabulary stay, and the tokenizer that has only those. Pure: dicts in, dicts out.

Entries go leaf first: never one that an entry which stays is merged from. What stays is closed under merging, so that a
text whose tokens all stay is tokenised as before, and any other text into more tokens, in the end into bytes. Why: each
merge that leads to a token which stays is still there, with the same order among the others; of the pairs that can be
merged at a step, the first in that order is therefore still the same one.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.types.arrays import IndexArray

ROWS = 64  # vLLM pads the embedding and the LM head to a multiple of this many rows


def padded(size: int) -> int:
    """The number of rows for a requested vocabulary: the next multiple of 64, which vLLM would compute anyway."""
    return -(-size // ROWS) * ROWS


def check_byte_level(tokenizer: Mapping[str, Any]) -> None:
    """Raises UnsupportedModelError for a tokenizer.json of another kind than byte-level BPE."""
    model = tokenizer.get("model") or {}
    kind = model.get("type")
    if kind != "BPE":
        raise _refused(f"is a {str(kind)[:40]} model")
    if "ByteLevel" not in {step.get("type") for step in _steps(tokenizer.get("pre_tokenizer"), "pretokenizers")}:
        raise _refused("is a BPE of characters")
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            raise _refused(f"has {key}")
    for step in _steps(tokenizer.get("post_processor"), "processors"):
        if step.get("type") not in _RENUMBER:
            raise _refused(f"has a post-processor {str(step.get('type'))[:40]}")


def _refused(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"the tokenizer {what}; only vocabularies of byte-level BPE can be trimmed")


def _steps(part: Mapping[str, Any] | None, inner: str) -> Iterator[Mapping[str, Any]]:
    """A part of tokenizer.json, or what its sequence holds."""
    if part is None:
        return
    if part.get("type") == "Sequence":
        for each in part.get(inner) or ():
            yield from _steps(each, inner)
    else:
        yield part


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Token -> id, added tokens among them."""
    return {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in _added(tokenizer)}}


def _added(tokenizer: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The added tokens; the library reads a file without a list of them."""
    found: Sequence[Mapping[str, Any]] = tokenizer.get("added_tokens", ())
    return found


def merges_of(tokenizer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pairs that are merged, first merge first."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in tokenizer["model"]["merges"])
    return [(left, right) for left, right in pairs]


def always_kept(tokenizer: Mapping[str, Any]) -> set[int]:
    """Ids of the byte alphabet, of added tokens, special ones among them, of the token for the unknown, and of those
    that the tokenizer puts around or after a text.
    """
    vocab, unknown = tokenizer["model"]["vocab"], tokenizer["model"].get("unk_token")
    padding = tokenizer.get("padding") or {}
    return (
        {number for token, number in vocab.items() if len(token) == 1}
        | {token["id"] for token in _added(tokenizer)}
        | ({vocab[unknown]} if unknown in vocab else set())
        | {number for step in _steps(tokenizer.get("post_processor"), "processors") for number in _put_around(step)}
        | {number for number in vocab.values() if number == padding.get("pad_id")}
    )


def _put_around(step: Mapping[str, Any]) -> Iterator[int]:
    """The ids that a step of the post-processor adds to a text."""
    for each in (step.get("special_tokens") or {}).values():
        yield from each["ids"]
    yield from (step[key][1] for key in ("sep", "cls") if key in step)


def choose_tokens(
    tokenizer: Mapping[str, Any], counts: Sequence[Mapping[int, int]], size: int, rows: int, required: Set[int]
) -> IndexArray:
    """The rows of the embedding that stay, `size` of them.

    Rows without a token go first. Then leaves, those that cost the first texts fewest tokens before others; where that
    is equal, by the next texts, and at last by the tokenizer's own order, the latest merge first. A token that goes
    leaves its occurrences to the two that it is merged from.

    Args:
        tokenizer: tokenizer.json.
        counts: Of each kind of text, the more important first: id -> how often it occurs.
        size: How many rows stay.
        rows: How many the embedding has.
        required: Ids that stay besides `always_kept`.

    Returns:
        Sorted ids.

    Raises:
        UsageError: Nothing would go, or what has to stay is more than `size`.
    """
    if size >= rows:
        raise UsageError(f"the vocabulary has {rows} rows, and {size} are to stay; give a smaller --size")
    ids, stay = token_ids(tokenizer), always_kept(tokenizer) | required
    spare = sorted(set(range(rows)) - set(ids.values()) - required)
    removed = set(spare[len(spare) - min(len(spare), rows - size) :])
    leaves = _leaves(ids, merges_of(tokenizer), counts, stay)
    while len(removed) < rows - size:
        leaf = next(leaves, None)
        if leaf is None:
            least = padded(rows - len(removed))
            raise UsageError(
                f"{rows - len(removed)} entries have to stay (bytes, special tokens and what these are merged from), "
                f"and --size is {size}; give at least {least}"
            )
        removed.add(leaf)
    return np.array(sorted(set(range(rows)) - removed), dtype=np.int32)


def _leaves(
    ids: Mapping[str, int], merges: Sequence[tuple[str, str]], counts: Sequence[Mapping[int, int]], stay: Set[int]
) -> Iterator[int]:
    """Ids in the order in which they go."""
    parts: dict[int, list[tuple[int, int]]] = {number: [] for number in ids.values()}
    order = {number: len(merges) for number in ids.values()}  # without a merge: never written, first to go
    for rank, (left, right) in enumerate(merges):
        made = ids[left + right]
        parts[made].append((ids[left], ids[right]))
        order[made] = min(order[made], rank)
    users = Counter(part for pairs in parts.values() for part in {part for pair in pairs for part in pair})
    costs = [Counter(count) for count in counts]

    def entry(number: int) -> tuple[int, ...]:
        return (*(cost[number] for cost in costs), -order[number], number)

    heap = [entry(number) for number in parts if not users[number] and number not in stay]
    heapq.heapify(heap)
    while heap:
        gone = heapq.heappop(heap)[-1]
        yield gone
        for part in parts[gone][0] if parts[gone] else ():
            for cost in costs:
                cost[part] += cost[gone]
        for part in {part for pair in parts[gone] for part in pair}:
            users[part] -= 1
            if not users[part] and part not in stay:
                heapq.heappush(heap, entry(part))


def trimmed(tokenizer: Mapping[str, Any], keep: IndexArray) -> dict[str, Any]:
    """tokenizer.json with only the tokens of `keep`, in the same order, numbered anew by their place in `keep`.

    Raises UsageError where `keep` lacks a token that has to stay, or one that another is merged from.
    """
    new = renumbering(keep)
    ids, model = token_ids(tokenizer), tokenizer["model"]
    pairs = merges_of(tokenizer)
    kept = [ids[left + right] in new for left, right in pairs]
    needed = {ids[part] for pair, stays in zip(pairs, kept, strict=True) if stays for part in pair}
    if missing := (needed | always_kept(tokenizer)) - new.keys():
        raise UsageError(f"the vocabulary to keep lacks token {min(missing)}, which others need; choose it again")
    vocab = sorted((new[number], token) for token, number in model["vocab"].items() if number in new)
    merges = [merge for merge, stays in zip(model["merges"], kept, strict=True) if stays]
    padding = tokenizer.get("padding")
    return {
        **tokenizer,
        "padding": padding and {**padding, "pad_id": new.get(padding["pad_id"], padding["pad_id"])},
        "added_tokens": [{**token, "id": new[token["id"]]} for token in _added(tokenizer)],
        "post_processor": _renumbered(tokenizer.get("post_processor"), new),
        "model": {**model, "vocab": {token: number for number, token in vocab}, "merges": merges},
    }


def renumbering(keep: IndexArray) -> dict[int, int]:
    """Old id -> new id."""
    return {int(number): place for place, number in enumerate(keep)}


def _renumbered(step: Mapping[str, Any] | None, new: Mapping[int, int]) -> dict[str, Any] | None:
    """A post-processor with the new ids."""
    if step is None:
        return None
    if step["type"] == "Sequence":
        return {**step, "processors": [_renumbered(each, new) for each in step["processors"]]}
    return _RENUMBER[step["type"]](step, new)


def _template(step: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    named = {
        name: {**each, "ids": [new[number] for number in each["ids"]]} for name, each in step["special_tokens"].items()
    }
    return {**step, "special_tokens": named}


def _pairs(step: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    return {**step, **{key: [step[key][0], new[step[key][1]]] for key in ("sep", "cls")}}


_RENUMBER = {
    "ByteLevel": lambda step, _: dict(step),
    "TemplateProcessing": _template,
    "BertProcessing": _pairs,
    "RobertaProcessing": _pairs,
}


def occurrences(texts: Iterable[Sequence[int]]) -> Counter[int]:
    """How often each id occurs."""
    return Counter(number for ids in texts for number in ids)

"""Splits by content hash, so that train, validation and test can never share an item."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Literal, TypeVar, get_args

Split = Literal["train", "validation", "test"]
_BUCKETS = 10
# the split of the paper's scripts (arXiv 2604.27115): the first rows of four data sets, drawn in this order
PaperSet = Literal["conversations", "questions", "code", "math"]
_PAPER_SETS: tuple[PaperSet, ...] = get_args(PaperSet)
PAPER_ROWS, _PAPER_KEPT, _PAPER_SEED = 1000, 800, 42
PAPER_SOURCE = "80 % of the first 1000 rows"  # for the names of sources
_Item = TypeVar("_Item")


def content_hash(key: str) -> int:
    """A 64-bit hash of `key` that is the same on every machine and in every process."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def split_of(key: str) -> Split:
    """80 % train, 10 % validation, 10 % test, decided by the content alone."""
    bucket = content_hash(key) % _BUCKETS
    return {0: "test", 1: "validation"}.get(bucket, "train")  # type: ignore[return-value]


def normalised(text: str) -> str:
    """Lower case, letters and digits only, single spaces: two texts equal here count as the same item."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def sample(items: Sequence[_Item], n: int, seed: int) -> list[_Item]:
    """`n` of the items in random order, all of them where there are fewer; the same for the same seed."""
    return random.Random(seed).sample(items, min(n, len(items)))


def paper_split(rows: Sequence[_Item], name: PaperSet) -> tuple[list[_Item], list[_Item]]:
    """The 80 % that the paper's scripts score of a data set's first 1000 rows, and the 20 % that they hold out.

    They use scikit-learn's stratified split of the four sets together with seed 42; the rows are the same here. Of a
    set with fewer rows: those of them that it has.

    Args:
        rows: the data set, in its own order.
        name: which of the four it is; each has a permutation of its own.
    """
    import numpy as np

    stream = np.random.RandomState(_PAPER_SEED)
    orders = {each: stream.permutation(PAPER_ROWS) for each in _PAPER_SETS}
    kept, held_out = orders[name][:_PAPER_KEPT], orders[name][_PAPER_KEPT:]
    return [rows[i] for i in kept if i < len(rows)], [rows[i] for i in held_out if i < len(rows)]

"""Splits by content hash, so that train, validation and test can never share an item."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from typing import Literal, TypeVar

Split = Literal["train", "validation", "test"]
_BUCKETS = 10
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

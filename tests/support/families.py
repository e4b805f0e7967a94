"""Families of models with heads of their own and with tied ones, as parameters of tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

_TIED = ("gemma2", "gpt2", "llama")  # softcapped logits, transposed weights, and the plain case


def with_both_heads(names: Sequence[str]) -> list[Any]:
    """(family, whether its head is its embedding): every family untied; tied, most are in the long tier."""
    untied = [pytest.param(name, False) for name in names]
    return [*untied, *(pytest.param(name, True, marks=() if name in _TIED else pytest.mark.long) for name in names)]

"""A generated text that carries what the engine said about it through lm-eval, which passes on only strings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Generation(str):
    """A str with `meta`: finish_reason, n_tokens, prompt_truncated. At module level because lm-eval pickles it."""

    meta: Mapping[str, Any]

    def __new__(cls, text: str, meta: Mapping[str, Any] | None = None) -> Generation:
        self = super().__new__(cls, text)
        self.meta = dict(meta or {})
        return self

    def __reduce__(self) -> tuple[type[Generation], tuple[str, Mapping[str, Any]]]:
        return Generation, (str(self), self.meta)

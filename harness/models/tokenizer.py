"""The tokenizer of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import UsageError


def load_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{model} has no tokenizer that transformers can read ({str(error).splitlines()[0]})"
        ) from error


def has_chat_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))

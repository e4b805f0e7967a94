"""The tokenizer of a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import UsageError, first_line


def load_tokenizer(model: Path) -> Any:
    """The transformers tokenizer of a model folder; raises UsageError where there is none that can be read."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except Exception as error:  # transformers and tokenizers raise many kinds for damaged files
        raise UsageError(f"{model} has no tokenizer that transformers can read ({first_line(error)})") from error


def has_chat_template(tokenizer: Any) -> bool:
    """Whether prompts can be formatted as a chat."""
    return bool(getattr(tokenizer, "chat_template", None))

"""The tokenizer of a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.core.bounded_read import read_text
from harness.core.chat import ChatFormat, chat_format
from harness.core.errors import HarnessError, UsageError, first_line
from harness.models.vocabulary import check_loaded
from pruning.checkpoint import ModelFolder

_TEMPLATES = ("chat_template.jinja", "chat_template.json")  # read before tokenizer_config.json


def load_tokenizer(model: ModelFolder) -> Any:
    """The transformers tokenizer of a model folder.

    Raises:
        UsageError: There is none that can be read, or it reads nothing.
        UnsupportedModelError: It has tokens that the model has not.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.path)
        check_loaded(tokenizer, model)
    except HarnessError:
        raise
    except Exception as error:  # transformers and tokenizers raise many kinds for damaged files
        raise UsageError(
            f"{model.path} has no tokenizer that transformers can read ({first_line(error)}); get its files again"
        ) from error
    return tokenizer


def load_chat(model: ModelFolder, template_args: Mapping[str, Any]) -> tuple[Any, ChatFormat | None]:
    """The tokenizer of a model folder, and how it formats a chat; None where it has no chat template.

    Raises:
        UsageError: The tokenizer or the template cannot be used, or the template does not use `template_args`.
    """
    names = (name for name in _TEMPLATES if (model.path / name).exists())
    source = model.path / next(names, "tokenizer_config.json")
    if source.suffix == ".jinja":
        try:
            read_text(source)
        except ValueError as error:  # transformers would not say which file
            raise UsageError(f"{source} is not UTF-8 ({error}); get the chat template again") from error
    tokenizer = load_tokenizer(model)
    return tokenizer, chat_format(tokenizer, template_args, str(source))

"""Chat templates for tests, and the embedded model with one of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.support.models import TINY_MATH

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
_BEGIN = "<|im_start|>assistant\n"
_OFF = "enable_thinking is defined and not enable_thinking"
_SWITCH = "{% if " + _OFF + " %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
_WRONG = "(m.role == 'user') != (loop.index0 % 2 == 0)"
_ALTERNATE = "{% if " + _WRONG + " %}{{ raise_exception('roles must alternate') }}{% endif %}"


def ending(text: str) -> str:
    return "{% if add_generation_prompt %}" + text + "{% endif %}"


PLAIN = TURNS + ending(_BEGIN)
REFUSES_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN
DROPS_SYSTEM = PLAIN.replace("in messages %}", "in messages if m.role != 'system' %}")
ALTERNATES = PLAIN.replace("in messages %}", "in messages %}" + _ALTERNATE)
THINKS = TURNS + ending(_BEGIN + "<think>\n")
MAY_THINK = TURNS + ending(_BEGIN + _SWITCH)


_OWN = "{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
# the model opens the block itself, and the template writes an empty one before answers
OPENS_ITSELF = TURNS.replace("{{ m.content }}", _OWN + "{{ m.content }}") + ending(
    _BEGIN + "{% if " + _OFF + " %}<think>\n\n</think>\n\n{% endif %}"
)


def tokenizer_with(template: str) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    tokenizer.chat_template = template
    return tokenizer


def model_with(template: str, folder: Path) -> Path:
    """The embedded model with this chat template."""
    shutil.copytree(TINY_MATH, folder)
    (folder / "chat_template.jinja").write_text(template)
    return folder

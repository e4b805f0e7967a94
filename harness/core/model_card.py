"""Model cards: a README.md with YAML front matter, a title and sections, each section written by one stage.

Pruning writes a card, recovery adds a section, and the card for the Hub takes over how the model was made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.core.bounded_read import compose_yaml, construct_yaml

MADE, TUNED, QUALITY, ORIGINAL = "How it was made", "Fine-tuned", "Quality", "The original's own card"
NO_CLAIM = "This card makes no claim about quality: measure it on your task."  # the section QUALITY without figures
_INHERITED = re.compile(
    "license|license_name|license_link|language|datasets|tags|pipeline_tag|library_name|extra_gated_[a-z_]{1,32}"
)
_GATED, _MOST_FIELDS = "extra_gated_fields", 64  # what the Hub asks of who wants the files: a mapping
_FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.S | re.M)
_OURS = re.compile(rf"\A# ([^\n]*)\n\n(?=## (?:{MADE}|{TUNED})\n)")


@dataclass(frozen=True)
class ModelCard:
    """A card as data.

    Attributes:
        front: the front matter, as the Hub reads it.
        title: one line of Markdown.
        sections: heading -> Markdown, in order; the heading "" stands for the text below the title.
    """

    front: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)


def split(text: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of any README.md.

    Front matter that is not valid YAML is dropped. Text between two rules (`---`) that is not a mapping belongs to the
    body.
    """
    import yaml

    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found = _FRONT.match(text)
    if not found:
        return {}, text.strip()
    try:
        front = construct_yaml(compose_yaml(found[1])) or {}
    except (yaml.YAMLError, RecursionError, ValueError):  # ValueError: a date that does not exist
        front = {}
    return (front, text[found.end() :].strip()) if isinstance(front, dict) else ({}, text.strip())


def read(text: str) -> ModelCard:
    """A card that `render` wrote, section by section; of any other README.md the body as the section ORIGINAL."""
    front, body = split(text)
    title = _OURS.match(body)
    if not title:
        return ModelCard(inherited(front), "", {ORIGINAL: body} if body else {})
    ours, heading, original = body[title.end() :].partition(f"## {ORIGINAL}\n")
    _, *parts = re.split(r"^## (.*)\n", ours, flags=re.M)
    sections = {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return ModelCard(front, title[1], {**sections, ORIGINAL: original.strip()} if heading else sections)


def is_own(text: str) -> bool:
    """Whether `render` wrote this README.md."""
    return bool(_OURS.match(split(text)[1]))


def render(card: ModelCard) -> str:
    """The card as the text of a README.md; sections without text are left out."""
    import yaml

    front = yaml.safe_dump(dict(card.front), sort_keys=False, allow_unicode=True) if card.front else ""
    head = f"---\n{front}---\n# {card.title}"
    parts = [f"## {name}\n\n{text.strip()}" if name else text.strip() for name, text in card.sections.items() if text]
    return "\n\n".join([head, *parts]) + "\n"


def inherited(front: Mapping[str, Any], *tags: str) -> dict[str, Any]:
    """What the card of a derived model keeps of an original's front matter: licence, language, data sets, tags, what it
    is for, and what the Hub asks of who wants the files.

    Results and the original's own base model are not among them. `tags` are added.
    """
    known = {str(key): value for key, value in front.items() if _INHERITED.fullmatch(str(key))}
    kept = {key: value for key, value in known.items() if is_plain(value) or (key == _GATED and _are_fields(value))}
    own = kept.get("tags")
    if found := sorted({*(map(str, own) if isinstance(own, list) else ()), *tags}):
        return {**kept, "tags": found}
    return {key: value for key, value in kept.items() if key != "tags"}


def _are_fields(value: Any) -> bool:
    """Name -> a kind, or a mapping of plain values such as {type: select, options: [...]}."""
    if not isinstance(value, dict) or len(value) > _MOST_FIELDS:
        return False
    inner = [each for field in value.values() for each in (field.values() if isinstance(field, dict) else (field,))]
    return len(inner) <= _MOST_FIELDS**2 and all(map(is_plain, inner))


def is_plain(value: Any) -> bool:
    """A scalar, or a list of them: what these fields hold. Anything nested may be endless once written out."""
    scalars = value if isinstance(value, list) else [value]
    return value is not None and all(isinstance(scalar, str | int | float) for scalar in scalars)

"""Keys and tokens are hidden by their value wherever a text is written down or shown, not by the option's name."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

HIDDEN = "..."
SERVER_KEY = "VLLM_API_KEY"
_NAMES = re.compile(r"(?:^|_)(?:TOKEN|API_?KEYS?|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)$", re.IGNORECASE)
_OPTIONS = re.compile(
    r"--?(?:api[-_]?k\w*|(?:[\w-]+[-_])?(?:api[-_]?key|token|secret|password))$", re.IGNORECASE
)  # vLLM's parser takes --api_key and --api-k as well
_SWITCHES = re.compile(r"[-+.\d]{1,5}|true|false|yes|no|on|off|none|null|auto", re.IGNORECASE)
_SHORTEST = 4  # characters of a secret of the environment; HF_HUB_DISABLE_IMPLICIT_TOKEN=1 is none
_SHORT = 6  # shorter ones are hidden only as whole words: they may be part of others


def redacted(text: str, *more: str | None) -> str:
    """The text with every known secret replaced by "...".

    Args:
        text: Any text, as it is or quoted for a shell, JSON or a URL.
        more: Secrets beside those of the environment and of this process's command line.
    """
    pattern = secret_pattern(*more)
    return pattern.sub(HIDDEN, text) if pattern else text


def redacted_tree(value: Any, *more: str | None) -> Any:
    """The same for every text in nested lists and mappings."""
    if isinstance(value, dict):
        return {key: redacted_tree(each, *more) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_tree(each, *more) for each in value]
    return redacted(value, *more) if isinstance(value, str) else value


def redacted_words(words: Sequence[str]) -> list[str]:
    """Words of a command line, the value of a key's option hidden even where it is one letter."""
    given = [value for value, _ in _option_values(words)]
    shown = [redacted(word, *given) for word in words]
    for value, i in _option_values(words):
        name, equals, _ = words[i].partition("=")
        shown[i] = f"{name}={HIDDEN}" if equals and _OPTIONS.match(name) else HIDDEN if value else words[i]
    return shown


def secret_pattern(*more: str | None) -> re.Pattern[str] | None:
    """A pattern of all known secrets; None where there are none. Compile it once for many texts."""
    found = {value.strip() for value in (*_known(), *more) if value and value.strip()}
    forms = {form for value in found for form in _forms(value)} - {HIDDEN}
    return re.compile("|".join(map(_literal, sorted(forms, key=len, reverse=True)))) if forms else None


def _known() -> Iterator[str]:
    for name, value in os.environ.items():
        if name == SERVER_KEY or (_NAMES.search(name) and len(value) >= _SHORTEST and not _SWITCHES.fullmatch(value)):
            yield value
    yield from (value for value, _ in _option_values(sys.argv[1:]))


def _option_values(words: Sequence[str]) -> Iterator[tuple[str, int]]:
    """What follows an option that takes a key, after a blank or "=", and the place of the word that holds it."""
    for i, word in enumerate(words):
        name, equals, value = word.partition("=")
        if _OPTIONS.match(name) and equals:
            yield value, i
        elif _OPTIONS.match(word) and i + 1 < len(words):
            yield words[i + 1], i + 1


def _forms(value: str) -> Iterator[str]:
    """As it stands, and as a shell, JSON, Python or a URL writes it."""
    yield from (value, shlex.quote(value), repr(value)[1:-1], json.dumps(value)[1:-1])
    yield from (json.dumps(value, ensure_ascii=False)[1:-1], urllib.parse.quote(value, ""))
    yield from (urllib.parse.quote(value), urllib.parse.quote_plus(value))


def _literal(form: str) -> str:
    return rf"(?<!\w){re.escape(form)}(?!\w)" if len(form) < _SHORT else re.escape(form)

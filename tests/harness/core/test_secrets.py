"""No key or token is left in a text, however it was given and however the text is quoted."""

from __future__ import annotations

import json
import shlex
import sys
import urllib.parse

import pytest

from harness.core.errors import MeasurementError, first_line
from harness.core.secrets import redacted, redacted_tree, redacted_words

KEY = "hk-LEAK-9922"


@pytest.mark.parametrize(
    "name", ["VLLM_API_KEY", "HF_TOKEN", "WANDB_API_KEY", "HARNESS_API_KEY", "MLFLOW_TRACKING_PASSWORD", "my_secret"]
)
def test_what_the_environment_names_a_secret_is_hidden_by_its_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    words = ["run", "--model", f"https://{KEY}@hub", f"--items={KEY}", "--note", "LEAK"]
    assert redacted_words(words) == ["run", "--model", "https://...@hub", "--items=...", "--note", "LEAK"]
    assert redacted_tree({"a": [f"x{KEY}", 3, None], "b": {"c": KEY}}) == {"a": ["x...", 3, None], "b": {"c": "..."}}
    assert first_line(MeasurementError(f"401 for {KEY}\nmore")) == "401 for ..."


@pytest.mark.parametrize("key", ['it\'s "a" \\ key', "ü+/=%&?x", "a b c", "line\nbreak"])
@pytest.mark.parametrize(
    "quoted", [str, shlex.quote, json.dumps, repr, urllib.parse.quote, urllib.parse.quote_plus, lambda key: f"<{key}>"]
)
def test_a_quoted_form_is_hidden_as_well(key: str, quoted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", key)
    text = redacted(f"before {quoted(key)} after")
    assert quoted(key).strip("'\"<>") not in text and text.startswith("before ") and text.endswith(" after")


@pytest.mark.parametrize(
    "given",
    [
        *([name, KEY] for name in ("--api-key", "--api_key", "--api-k", "--API-KEY", "--hf-token", "--token")),
        *([f"{name}={KEY}"] for name in ("--api-key", "--api_key", "--api_ke", "--hf_token")),
    ],
)
def test_the_value_of_an_option_that_takes_a_key_is_hidden_everywhere(
    given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = given[0].partition("=")[0]
    hidden = [name, "..."] if len(given) == 2 else [f"{name}=..."]
    assert redacted_words(["serve", "m", *given, "--out", f"runs/{KEY}"]) == [
        "serve",
        "m",
        *hidden,
        "--out",
        "runs/...",
    ]
    monkeypatch.setattr(sys, "argv", ["harness", "serve", *given])
    assert redacted(f"the model {KEY} is not known") == "the model ... is not known"


def test_a_key_of_one_letter_hides_no_part_of_a_word() -> None:
    assert redacted_words(["serve", "a", "--api-key", "a", "data"]) == ["serve", "...", "--api-key", "...", "data"]


@pytest.mark.parametrize("value", ["", " ", "1", "0", "true", "False", "abc"])
def test_a_switch_is_no_secret(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", value)
    assert redacted("1 true False 0 abc ") == "1 true False 0 abc "


def test_counts_of_tokens_are_no_tokens() -> None:
    words = ["bench", "m", "--output-tokens", "64", "--score-tokens", "prompt", "--", "--max-num-batched-tokens=8"]
    assert redacted_words(words) == words

"""A tokenizer's files against the model's vocabulary, without loading them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import UnsupportedModelError, UsageError
from harness.models import registry
from harness.models.tokenizer import load_tokenizer
from pruning.checkpoint import open_model
from tests.support.models import build_model

pytestmark = pytest.mark.slow


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = build_model("llama", tmp_path / "m")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    return folder


def _write(model: Path, name: str, value: Any) -> None:
    (model / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer.json", {"added_tokens": [{"id": 1088, "content": "one too many"}], "model": {"vocab": {"a": 0}}}),
        ("tokenizer.json", {"model": {"vocab": {"a": 0, "one too many": 1088}}}),
        ("tokenizer.json", {"model": {"vocab": [*(["a", -1.0] for _ in range(1088)), ["one too many", -1.0]]}}),
        ("vocab.json", {"a": 0, "one too many": 1088}),
        ("added_tokens.json", {"one too many": 1088}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1088": {"content": "one too many"}}}),
    ],
)
def test_a_token_without_a_row_in_the_embedding_is_named(name: str, value: dict[str, Any], model: Path) -> None:
    if name in ("vocab.json", "added_tokens.json"):
        (model / "tokenizer.json").unlink()
        _write(model, "vocab.json", {"a": 0})
    _write(model, name, value)
    with pytest.raises(UnsupportedModelError, match=r"one too many.* as token 1088, and the embedding has 1088 rows"):
        registry.shape(str(model), "math")


def test_the_last_row_is_a_token(model: Path) -> None:
    _write(model, "tokenizer.json", {"added_tokens": [{"id": 1087, "content": "last"}], "model": {"vocab": {"a": 0}}})
    assert registry.shape(str(model), "math").vocab_size == 1088


def test_a_token_that_no_text_has_may_be_beyond(model: Path) -> None:
    """google/gemma-3-1b-it has 262,144 rows, and the tokenizer of the larger ones with their token for a picture."""
    _write(model, "tokenizer.json", {"added_tokens": [{"id": 1088, "content": "<image_soft_token>"}], "model": {}})
    assert registry.shape(str(model), "math").vocab_size == 1088


def test_a_model_without_a_tokenizer_is_refused(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="has no tokenizer"):
        registry.locate(str(model), "math")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("added_tokens.json", {"apples": 1088}),
        ("tokenizer_config.json", {"bos_token": "<|newbos|>", "tokenizer_class": "PreTrainedTokenizerFast"}),
    ],
)
def test_a_token_that_only_a_side_file_names_is_seen(name: str, value: dict[str, Any], model: Path) -> None:
    _write(model, name, value)
    with pytest.raises(UnsupportedModelError, match=r"as token 1088, and the embedding has 1088 rows"):
        load_tokenizer(registry.locate(str(model), "math"))


def test_a_tokenizer_that_reads_nothing_is_refused(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    _write(model, "vocab.json", {})
    (model / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    _write(model, "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"})
    with pytest.raises(UsageError, match="tokenizer that reads nothing of a sentence"):
        load_tokenizer(open_model(model))

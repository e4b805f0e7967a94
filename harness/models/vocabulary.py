"""A tokenizer against the model's vocabulary: its files, and as transformers loads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.errors import UnsupportedModelError, UsageError
from pruning.checkpoint import ModelFolder

_FAST = "tokenizer.json"
_SLOW = ("tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
_VOCABULARY, _ADDED = "vocab.json", "added_tokens.json"
_SETTINGS = "tokenizer_config.json"
_SENTENCE = "The answer is 4."
_FILE_BYTES = 256 << 20
_NEVER_WRITTEN = frozenset({"<image_soft_token>"})  # Gemma 3's text-only models share the tokenizer of the others


def check_tokenizer(model: ModelFolder) -> None:
    """Compares a tokenizer's files with the model, without loading them.

    Raises:
        UsageError: There is no tokenizer, or its files cannot be read.
        UnsupportedModelError: A token has no row in the embedding.
    """
    if not any((model.path / name).exists() for name in (_FAST, *_SLOW)):
        raise UsageError(
            f"{model.path} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json); "
            "copy its files from the model that this one was made from"
        )
    for tokens in _tokens(model.path):
        _check_rows(tokens, model.shape.vocab_size, model.path)


def check_loaded(tokenizer: Any, model: ModelFolder) -> None:
    """Compares a loaded tokenizer with config.json: transformers gives new numbers to tokens that its files only name.

    Raises:
        UsageError: The tokenizer reads nothing of a sentence.
        UnsupportedModelError: A token has no row in the embedding.
    """
    rows, folder = model.shape.vocab_size, model.path
    _check_rows(tokenizer.get_vocab(), rows, folder)
    numbers = list(tokenizer(_SENTENCE)["input_ids"])
    if beyond := [number for number in numbers if number >= rows]:
        _check_rows({str(tokenizer.convert_ids_to_tokens(beyond[0])): beyond[0]}, rows, folder)
    if not set(numbers) - set(tokenizer.all_special_ids):
        raise UsageError(
            f"{folder} has a tokenizer that reads nothing of a sentence; copy its files from the model that this one "
            "was made from"
        )


def _check_rows(tokens: Mapping[str, Any], rows: int, folder: Path) -> None:
    """Raises UnsupportedModelError for a token (token -> number) that has no row in the embedding."""
    beyond = {
        token: number
        for token, number in tokens.items()
        if type(number) is int and number >= rows and token not in _NEVER_WRITTEN
    }
    if beyond:
        token = max(beyond, key=lambda token: beyond[token])
        raise UnsupportedModelError(
            f"{folder}: the tokenizer has {token[:40]!r} as token {beyond[token]}, and the embedding has {rows} "
            f"rows ({len(beyond)} tokens beyond its vocabulary); resize the embedding, or take the tokens out"
        )


def _tokens(folder: Path) -> Iterator[Mapping[str, Any]]:
    """token -> number, file by file, as far as the files say so in JSON."""
    if (folder / _FAST).exists():
        yield from _of_fast(read_json_object(folder / _FAST, _FILE_BYTES))
    elif (folder / _VOCABULARY).exists():
        yield read_json_object(folder / _VOCABULARY, _FILE_BYTES)
    if (folder / _ADDED).exists():
        yield read_json_object(folder / _ADDED, _FILE_BYTES)
    if (folder / _SETTINGS).exists():
        added = read_json_object(folder / _SETTINGS, _FILE_BYTES).get("added_tokens_decoder")
        found = added.items() if isinstance(added, dict) else ()
        yield {_content(value): int(number) for number, value in found if str(number).isdecimal()}


def _of_fast(file: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    model, added = file.get("model"), file.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield vocabulary
    elif isinstance(vocabulary, list):  # a Unigram model: the number is the place
        yield {str(piece): number for number, piece in enumerate(vocabulary)}
    tokens = [token for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    yield {_content(token): token.get("id") for token in tokens}


def _content(token: Any) -> str:
    return str(token.get("content") if isinstance(token, dict) else token)

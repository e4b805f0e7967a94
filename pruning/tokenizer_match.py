"""The tokenizer of a written folder against that of its dense model, both as transformers' AutoTokenizer loads them.

AutoTokenizer chooses the class by config.json's model_type first and by tokenizer_class after it, and a class may set
its own steps whatever tokenizer.json says. A folder with another model_type therefore has to name the class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.errors import UsageError
from harness.core.types.arrays import IndexArray
from pruning.checkpoint import ModelFolder

_SETTINGS = "tokenizer_config.json"
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json")
_FILE_BYTES = 256 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
_COMMON_NAMES = {"TokenizersBackend": "PreTrainedTokenizerFast"}  # the name that transformers had before version 5
_TEXTS = (
    "Question: Tom has 3 bags with 12 apples each.\nAnswer:",
    "def add(a, b):\n\n        return  a + b\t# 1234567890",
    "e\u0301 A\u030a \u00e9 \u00c5 \ufb01 \u6f22\u5b57 \U0001f642",  # composed and decomposed letters, a ligature
    "  We'LL  see   it's 3.14,  isn't it? ",
)


def load_plainly(folder: Path) -> Any:
    """The tokenizer of a folder without running code that lies in it; None where it has none that can be loaded."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    if not any((folder / name).exists() for name in _VOCABULARIES):
        return None  # some classes would load as an empty tokenizer
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # it warns of a model_type that it does not know, such as DeciLM's
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # transformers and tokenizers raise many kinds; whoever needs a tokenizer says what is wrong
        return None
    finally:
        logging.set_verbosity(level)


def keep_tokenizer(model: ModelFolder, out: Path, config: Mapping[str, Any], keep: IndexArray | None) -> None:
    """Makes a folder read texts as the dense model does, and checks that; for what can change how it reads: another
    model_type, or a smaller vocabulary.

    Args:
        model: The dense model.
        out: The folder, in which config.json and the tokenizer's files are already.
        config: Its config.json.
        keep: The rows of the vocabulary that stay; None: all.

    Raises:
        UsageError: It reads texts otherwise.
    """
    moved = config["model_type"] != model.config["model_type"]
    dense = load_plainly(model.path) if moved or keep is not None else None
    if dense is None:
        return
    if moved:
        _name_class(dense, out / _SETTINGS)
    if difference := tokenizer_difference(dense, load_plainly(out), keep):
        raise UsageError(
            f"the tokenizer of {model.path} cannot be kept in a folder of model_type {config['model_type']}: "
            f"{difference}; write its files anew (AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of "
            "transformers), or prune neurons without changing the vocabulary"
        )


def tokenizer_difference(
    dense: Any, written: Any, keep: IndexArray | None, texts: Sequence[str] = _TEXTS
) -> str | None:
    """What a written folder's tokenizer does otherwise than the dense model's, in a few words; None where nothing.

    Args:
        dense: The dense model's tokenizer.
        written: The other; None where it cannot be loaded.
        keep: The row of the dense model's vocabulary of each row of the written one's; None: the same.
        texts: What both read, beside the special tokens.
    """
    if written is None:
        return "transformers cannot load it there"
    rows = None if keep is None else keep.tolist()
    if rows is not None and (beyond := max(written.get_vocab().values())) >= len(rows):
        return f"it would have {written.convert_ids_to_tokens(beyond)!r} as token {beyond} of {len(rows)}"
    for name in ("bos", "eos", "pad"):
        if _id_of(dense, name) != _back(_id_of(written, name), rows):
            return f"it would have another {name} token"
    for text in (*texts, *_special(dense)):
        if not _reads_alike(dense, written, rows, text):
            return f"it would read {text[:40]!r} as other tokens"
    return None


def _name_class(tokenizer: Any, settings: Path) -> None:
    """Writes the class of a tokenizer, and the tokens that it sets where the settings leave them out."""
    name = type(tokenizer).__name__
    found = read_json_object(settings, _FILE_BYTES) if settings.exists() else {}
    own = {token: getattr(tokenizer, token, None) for token in _NAMED}
    named = {**own, **found, "tokenizer_class": _COMMON_NAMES.get(name, name)}
    if named != found:
        settings.write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _id_of(tokenizer: Any, name: str) -> int | None:
    """Of a special token; None where the class knows none, as that of tekken.json."""
    found: int | None = getattr(tokenizer, f"{name}_token_id", None)
    return found


def _special(tokenizer: Any) -> Iterator[str]:
    """Its special tokens within a text, and each alone."""
    tokens = list(map(str, tokenizer.all_special_tokens))
    yield " a ".join(tokens)
    yield from tokens


def _back(number: int | None, rows: Sequence[int] | None) -> int | None:
    """A token's number in the dense model's vocabulary."""
    return number if number is None or rows is None else rows[number]


def _reads_alike(dense: Any, written: Any, rows: Sequence[int] | None, text: str) -> bool:
    """Whether both read the same tokens; where one of them is gone, others of the same text."""
    expected = list(dense(text)["input_ids"])
    found = [_back(number, rows) for number in written(text)["input_ids"]]
    if found == expected or rows is None or set(expected) <= set(rows):
        return found == expected
    return bool(dense.decode(found) == dense.decode(expected))

"""The vocabulary of a GGUF file: tokenizer.json in llama.cpp's words (tokens, types, merges, the name of the
pre-tokenizer). What llama.cpp would read otherwise than the tokenizers library does is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.core.bounded_read import read_json_object
from harness.core.errors import UnsupportedModelError
from pruning.checkpoint import ModelFolder
from pruning.vocabulary import check_byte_level, token_ids
from pruning.vocabulary_files import TOKENIZER

_FILE_BYTES = 256 << 20
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_TOKENIZERS: Mapping[tuple[tuple[Any, ...], ...], str] = {  # steps -> the name in src/llama-vocab.cpp
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (("Split", rf"{_CONTRACTIONS}\p{{N}}{_REST}"), ("ByteLevel", False)): "qwen2",
    (("Split", rf"{_CONTRACTIONS}\p{{N}}{{1,3}}{_REST}"), ("ByteLevel", False)): "llama-bpe",
}
_WHOLE_WORDS_FIRST = "llama-bpe"  # the one with ignore_merges
_ASIDE = ("lstrip", "rstrip", "single_word")  # of an added token: what it takes of the text around it


def tokens_refusal(model: ModelFolder) -> str | None:
    """Why llama.cpp cannot read text as a model's tokenizer does, None where it can."""
    file = model.path / TOKENIZER
    if not file.exists():
        return f"it has no {TOKENIZER} (a SentencePiece tokenizer alone is not converted)"
    tokenizer = read_json_object(file, _FILE_BYTES)
    try:
        check_byte_level(tokenizer)
    except UnsupportedModelError as error:
        return str(error).partition(";")[0] + ", and only byte-level BPE is written, not SentencePiece"
    return _steps_refusal(tokenizer) or _tokens_refusal(tokenizer, model.shape.vocab_size) or _ends_refusal(model)


def _steps_refusal(tokenizer: Mapping[str, Any]) -> str | None:
    normalizer, name = tokenizer.get("normalizer"), _pre_tokenizer(tokenizer)
    if normalizer and normalizer.get("type") != "NFC":
        return f"its tokenizer has the normalizer {str(normalizer.get('type'))[:40]}, which llama.cpp has not"
    if name is None:
        kinds = ", ".join(str(step.get("type"))[:40] for step in _steps(tokenizer))
        return f"its pre-tokenizer ({kinds}) is none of {', '.join(_PRE_TOKENIZERS.values())}"
    if bool(tokenizer["model"].get("ignore_merges")) != (name == _WHOLE_WORDS_FIRST):
        return f"its ignore_merges is not what llama.cpp has with the pre-tokenizer {name}"
    return None


def _tokens_refusal(tokenizer: Mapping[str, Any], rows: int) -> str | None:
    for token in tokenizer.get("added_tokens", ()):
        if set_to := next((key for key in _ASIDE if token.get(key)), None):
            return f"its token {token['content'][:40]!r} has {set_to}, which llama.cpp has not"
    most = max(token_ids(tokenizer).values())
    return f"its tokenizer has token {most}, and the embedding has {rows} rows" if most >= rows else None


def _ends_refusal(model: ModelFolder) -> str | None:
    if _ends(model.path, _special(model)) is None:
        return "its tokenizer adds other tokens to a text than one BOS before it and one EOS behind it"
    return None


def add_tokens(writer: Any, model: ModelFolder) -> None:
    """Adds a vocabulary, its special tokens and the chat template to a `gguf.GGUFWriter`.

    Rows of the embedding without a token get a name of their own, as llama.cpp wants a token for each row.
    """
    tokenizer, special = read_json_object(model.path / TOKENIZER, _FILE_BYTES), _special(model)
    tokens, types = _table(tokenizer, model.shape.vocab_size)
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name of byte-level BPE
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special.add_special_token = _ends(model.path, special)
    special.add_to_gguf(writer, quiet=True)


def _table(tokenizer: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Text and type of every row; added tokens as they are, all others in the byte alphabet."""
    from gguf import TokenType

    tokens, types = [f"[PAD{row}]" for row in range(rows)], [int(TokenType.UNUSED)] * rows
    for token, row in tokenizer["model"]["vocab"].items():
        tokens[row], types[row] = token, int(TokenType.NORMAL)
    for added in tokenizer.get("added_tokens", ()):
        kind = TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    return tokens, types


def _special(model: ModelFolder) -> Any:
    """Merges, ids of special tokens and the chat template, as gguf reads them from a folder."""
    from gguf import SpecialVocab

    return SpecialVocab(model.path, load_merges=True, n_vocab=model.shape.vocab_size)


def _ends(folder: Path, special: Any) -> dict[str, bool] | None:
    """Which of BOS and EOS the tokenizer adds to a text; None where it adds anything else."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    bare, whole = (tokenizer.encode("a", add_special_tokens=added).ids for added in (False, True))
    bos, eos = ([special.special_token_ids.get(name)] for name in ("bos", "eos"))
    for before, behind in ((False, False), (True, False), (False, True), (True, True)):
        if whole == [*(bos if before else ()), *bare, *(eos if behind else ())]:
            return {"bos": before, "eos": behind}
    return None


def _pre_tokenizer(tokenizer: Mapping[str, Any]) -> str | None:
    """llama.cpp's name of how text is split before merging, None for an unknown one."""
    return _PRE_TOKENIZERS.get(tuple(_essence(step) for step in _steps(tokenizer)))


def _steps(tokenizer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    part = tokenizer["pre_tokenizer"]
    yield from part.get("pretokenizers") or () if part.get("type") == "Sequence" else (part,)


def _essence(step: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a step changes where a text is split, for the settings that the table has; () for others."""
    kind, pattern = step.get("type"), step.get("pattern")
    if kind == "ByteLevel" and not step.get("add_prefix_space", True):
        return kind, bool(step.get("use_regex", True))
    if kind == "Digits":
        return kind, bool(step.get("individual_digits"))
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return kind, pattern.get("Regex") if isinstance(pattern, dict) else None
    return ()

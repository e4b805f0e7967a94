"""What a smaller vocabulary changes in a model folder beside the weights: the tokenizer's files, and the token ids in
config.json and generation_config.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.core.bounded_read import read_json_object
from harness.core.errors import UnsupportedModelError, UsageError, first_line
from harness.core.types.arrays import IndexArray
from pruning.checkpoint import ModelFolder
from pruning.families import Family
from pruning.tokenizer_match import load_plainly
from pruning.vocabulary import always_kept, check_byte_level, renumbering, token_ids, trimmed

TOKENIZER, _SETTINGS, _GENERATION = "tokenizer.json", "tokenizer_config.json", "generation_config.json"
_SPECIAL, _DECODER = "special_tokens_map.json", "added_tokens_decoder"
_FILE_BYTES = 256 << 20
_OTHER_FORMS = re.compile(  # of the same vocabulary, which would still have all entries
    r"(vocab|added_tokens|tekken|encoder|decoder|vocab-src|vocab-tgt)\.json|(vocab|merges)\.txt|vocab\.bpe|bpe\.codes"
    r"|.*\.(tiktoken|spm)|.*\.model(\.v\d+)?"
)
_MIXED = {"sequence_bias", "forced_decoder_ids"}
_IDS = re.compile(r"\w+_token_ids?|(begin_)?suppress_tokens|bad_words_ids|force_words_ids")


def read_tokenizer(model: ModelFolder) -> dict[str, Any]:
    """tokenizer.json of a model whose vocabulary can be trimmed.

    Raises:
        UsageError: There is none.
        UnsupportedModelError: It is damaged or no byte-level BPE, or token ids stand where they cannot be numbered
            anew: in the config of a vision tower, or among other numbers in generation_config.json.
    """
    if model.family.tower:
        raise UnsupportedModelError(
            f"{model.family.model_type} is a vision-language model, whose vocabulary cannot be trimmed here; "
            "save its text model alone (docs/your-model.md shows how)"
        )
    if not (model.path / TOKENIZER).exists():
        raise UsageError(
            f"{model.path} has no {TOKENIZER}, the form in which a vocabulary is trimmed; write it with "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of transformers"
        )
    tokenizer = read_json_object(model.path / TOKENIZER, _FILE_BYTES)
    _check_loads(model.path / TOKENIZER)
    check_byte_level(tokenizer)
    _check_generation(model.path / _GENERATION)
    return tokenizer


def required_rows(model: ModelFolder, tokenizer: Mapping[str, Any]) -> set[int]:
    """Rows of the embedding that stay whatever the texts are: bytes, added tokens, those that the model's settings name
    by id or by text, and those of tokens that the tokenizer's class adds, such as the unknown one of Qwen2's.
    """
    settings, special, generation = (_object(model.path / name) for name in (_SETTINGS, _SPECIAL, _GENERATION))
    ids = token_ids(tokenizer)
    known = {ids[text] for found in (settings, special) for text in _texts_in(found) if text in ids}
    rows = {number for found in (model.config, generation) for number in _ids_in(found)} | _decoded(settings).keys()
    rows |= _of_class(model.path, ids)
    return always_kept(tokenizer) | known | {number for number in rows if 0 <= number < model.shape.vocab_size}


def _of_class(folder: Path, ids: Mapping[str, int]) -> set[int]:
    """Numbers of the tokens that no file of a tokenizer has and that transformers adds to it.

    They come after all others, before and after trimming, so that the row that stays is the one of the new number;
    where it is not, as rows without a token lie between, `keep_tokenizer` refuses the folder.
    """
    tokenizer = load_plainly(folder)
    return set() if tokenizer is None else {n for token, n in tokenizer.get_vocab().items() if token not in ids}


def has_vocabulary_rows(family: Family, name: str) -> bool:
    """Whether a tensor has one row for each entry of the vocabulary: the embedding, and an LM head of its own."""
    own = family.own_name(name)
    rows = {row.name for row in family.tensors.model if row.sizes.split()[0] == "v"}
    return bool({own, f"{family.body}.{own}"} & rows)


def with_vocabulary(config: Mapping[str, Any], keep: IndexArray) -> dict[str, Any]:
    """config.json of a model that keeps these rows."""
    return {**_renumbered(config, renumbering(keep)), "vocab_size": len(keep)}


def check_vocabulary(model: ModelFolder, keep: IndexArray, size: int | None) -> None:
    """Raises UsageError where a plan's vocabulary is not this model's, or leaves out what has to stay, and
    UnsupportedModelError where the tokenizers library would read what is written otherwise.
    """
    if size != model.shape.vocab_size:
        raise UsageError(
            f"the plan is for a vocabulary of {size} rows, and {model.path} has {model.shape.vocab_size}; "
            "make a plan from this model"
        )
    tokenizer = read_tokenizer(model)
    _check_readable(trimmed(tokenizer, keep))
    if missing := required_rows(model, tokenizer) - renumbering(keep).keys():
        raise UsageError(f"the plan leaves out token {min(missing)}, which {model.path} names in its settings or adds")


def rows_in(part: ModelFolder, whole: ModelFolder) -> NDArray[np.int64] | None:
    """The row of `whole` with the same token as each row of a model whose vocabulary was trimmed, -1 for a row that is
    no token; None where both have as many rows.

    Raises UsageError where a tokenizer.json is missing or damaged, and UnsupportedModelError where one has no such
    vocabulary.
    """
    if part.shape.vocab_size == whole.shape.vocab_size:
        return None
    place = token_ids(read_tokenizer(whole))
    found = np.full(part.shape.vocab_size, -1, dtype=np.int64)
    for token, number in token_ids(read_tokenizer(part)).items():
        found[number] = place.get(token, -1)
    return found


def write_vocabulary(model: ModelFolder, keep: IndexArray, out: Path) -> None:
    """Writes the tokenizer and the settings of generation that belong to the rows kept; removes from `out`, to which
    they were copied, other forms of the whole vocabulary. `check_vocabulary` says beforehand whether it can be done.
    """
    for file in out.iterdir():
        if _OTHER_FORMS.fullmatch(file.name):
            file.unlink()
    new = renumbering(keep)
    _write(out / TOKENIZER, trimmed(read_tokenizer(model), keep))
    if generation := _object(model.path / _GENERATION):
        _write(out / _GENERATION, _renumbered(generation, new))
    settings = _object(model.path / _SETTINGS)
    if added := _decoded(settings):
        numbered = {str(new[number]): token for number, token in added.items()}
        _write(out / _SETTINGS, {**settings, _DECODER: numbered})


def _check_loads(file: Path) -> None:
    """Raises UnsupportedModelError for a tokenizer.json that the tokenizers library cannot read."""
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no kind of its own
        raise UnsupportedModelError(f"{file} cannot be read ({first_line(error)}); get this file again") from error


def _check_generation(file: Path) -> None:
    """Raises UnsupportedModelError for settings in which token ids stand among other numbers."""
    if named := sorted(_MIXED & {key for key, value in _object(file).items() if value}):
        raise UnsupportedModelError(
            f"{file} has {named[0]}, whose token ids cannot be numbered anew; take that out to trim the vocabulary"
        )


def _check_readable(tokenizer: Mapping[str, Any]) -> None:
    """The library numbers added tokens itself, and ignores what the file says where it disagrees."""
    from tokenizers import Tokenizer

    if Tokenizer.from_str(json.dumps(tokenizer)).get_vocab() != token_ids(tokenizer):
        raise UnsupportedModelError(
            "the tokenizer has added tokens whose ids cannot be numbered anew; its vocabulary cannot be trimmed"
        )


def _object(file: Path) -> dict[str, Any]:
    return read_json_object(file, _FILE_BYTES) if file.exists() else {}


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _texts_in(settings: Mapping[str, Any]) -> Iterator[str]:
    """The tokens that settings of a tokenizer name, as pad_token or in additional_special_tokens."""
    waiting = [value for key, value in settings.items() if key.endswith(("_token", "_tokens"))]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += [value["content"]] if "content" in value else value.values()


def _decoded(settings: Mapping[str, Any]) -> dict[int, Any]:
    """The added tokens by their ids in tokenizer_config.json."""
    found = settings.get(_DECODER)
    tokens = found.items() if isinstance(found, dict) else ()
    return {int(number): token for number, token in tokens if number.isdecimal()}


def _ids_in(settings: Mapping[str, Any]) -> Iterator[int]:
    for key, value in settings.items():
        if _IDS.fullmatch(key):
            yield from _flat(value)


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for each in value:
            yield from _flat(each)
    elif type(value) is int:
        yield value


def _renumbered(settings: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    return {key: _with_ids(value, new) if _IDS.fullmatch(key) else value for key, value in settings.items()}


def _with_ids(value: Any, new: Mapping[int, int]) -> Any:
    """Ids beyond the embedding, such as -1 for none, stay."""
    if isinstance(value, list):
        return [_with_ids(each, new) for each in value]
    return new.get(value, value) if type(value) is int else value

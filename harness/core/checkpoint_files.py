"""Which files are part of a checkpoint: they are copied into a pruned or fine-tuned one, and sent to the Hub.

The list says what is. Everything else stays where it is: keys, logs, what a training left, weights of other formats,
settings of a quantisation, an adapter.
"""

from __future__ import annotations

import re

TEMPLATES = "additional_chat_templates"
_NAME = r"[^/.][^/]*"
SIDE_FILES = re.compile(  # what transformers and vLLM read beside the weights
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|tekken|chat_template|training)\.json"
    r"|(generation_config|preprocessor_config|processor_config|video_preprocessor_config)\.json"
    rf"|{_NAME}\.(tiktoken|jinja)|{TEMPLATES}/{_NAME}\.jinja"
    r"|([\w.-]*[_.-])?(tokenizer|spiece|sentencepiece|spm|bpe|vocab|merges|source|target)([_.-][\w.-]*)?\.(model|spm)"
    r"|tokenizer\.model\.v\d+"
    r"|(vocab|merges)\.txt|(vocab-src|vocab-tgt|encoder|decoder)\.json|vocab\.bpe|bpe\.codes",
    re.ASCII,
)
_LICENCE = re.compile(  # of the model, of its parts, or what it may be used for; license_key.txt is none
    r"((model|third[_-]party)[_-])?(licen[sc]es?|notices?|copying|copyright|use[_-]policy)"
    r"(-(?![\w.-]*(key|token|secret|passw))[\w.-]+?)?(\.(txt|md|rst|pdf))?",
    re.ASCII | re.IGNORECASE,
)
WEIGHTS = re.compile(rf"{_NAME}\.safetensors(\.index\.json)?")
OWN_FILES = re.compile(
    r"config\.json|README\.md|pruning\.json|recovery\.json|pruning/(plan(-\d{1,3})?|order)\.safetensors"
)
PICTURES = re.compile(rf"({_NAME}/)*{_NAME}\.(?i:png|jpe?g|gif|webp|svg)")
_ENDINGS = re.compile(r".*\.(?i:bin|pt|pth|pkl|pickle|ckpt|py|gguf|msgpack|h5|onnx|npz|key|pem)", re.DOTALL)


def is_side_file(name: str) -> bool:
    """Whether a file, by its path from the model folder, belongs to a checkpoint beside weights and config.json."""
    return is_licence(name) or (bool(SIDE_FILES.fullmatch(name)) and not _ENDINGS.fullmatch(name))


def is_licence(name: str) -> bool:
    """Whether a file at the top of a folder has the name of a licence, or of a notice that comes with one."""
    return bool(_LICENCE.fullmatch(name)) and not _ENDINGS.fullmatch(name)


def is_part(name: str) -> bool:
    """Whether a file, by its path from the folder, is part of a checkpoint: weights, side files and what is written
    about them.
    """
    return is_side_file(name) or any(kind.fullmatch(name) for kind in (WEIGHTS, OWN_FILES))

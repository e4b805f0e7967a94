"""The streaming moments: the same for every split into batches, and those of a naive second pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import UnsupportedModelError
from harness.core.types.calibration import CalibrationSet
from pruning import second_moments
from pruning.activations import down_weight, observe, pad
from pruning.calibration import batches
from pruning.collect import collect
from pruning.families import FAMILIES, submodule
from pruning.layer_source import InMemory
from pruning.second_moments import SecondMoments
from tests.support.calibration import items
from tests.support.models import build_model, plain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(random_model: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(random_model, dtype=torch.float32).eval()


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_collect_is_the_definition(model, lengths: list[int], seed: int) -> None:  # type: ignore[no-untyped-def]
    """Padding, length buckets and token ranges leave no trace: prompt by prompt gives the same."""
    chosen = items(lengths, seed)
    stats = collect(
        InMemory(model, FAMILIES["qwen2"]),
        CalibrationSet(
            model="m", model_hash="weights", target_source="t", distractor_sources=(), tokens="all", items=chosen
        ),
    )
    means: dict[bool, list[np.ndarray]] = {True: [], False: []}
    tokens: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for item in chosen:
        seen: dict[int, torch.Tensor] = {}
        with (
            torch.no_grad(),
            observe(model, FAMILIES["qwen2"], lambda layer, h, seen=seen: seen.__setitem__(layer, h[0])),
        ):
            model.model(torch.tensor([item.token_ids]))
        h = torch.stack([seen[layer] for layer in sorted(seen)])[:, item.start : item.stop].double().numpy()
        means[item.target].append(np.abs(h).mean(1))
        tokens[item.target].append(h)
    for target, group in ((True, stats.target), (False, stats.distractor)):
        h = np.concatenate(tokens[target], axis=1)
        expected = {"mean_abs": np.abs(h), "mean": h, "mean_square": h**2, "positive": h > 0}
        assert group.tokens == h.shape[1]
        np.testing.assert_allclose(group.prompts.mean, np.mean(means[target], axis=0), rtol=1e-3, atol=2e-5)
        np.testing.assert_allclose(group.prompts.m2, np.var(means[target], axis=0) * len(lengths), rtol=1e-3, atol=2e-5)
        near_zero = (np.abs(h) < 1e-5).mean(1)  # whose sign is rounding
        for name, values in expected.items():
            slack = near_zero if name == "positive" else 0.0
            off = np.maximum(0.0, np.abs(getattr(group, name) - values.mean(1)) - slack)
            np.testing.assert_allclose(values.mean(1) + off, values.mean(1), rtol=1e-3, atol=2e-5, err_msg=name)
        np.testing.assert_allclose(
            np.sort(group.sample, axis=0), np.sort(np.float32(means[target]), axis=0), rtol=1e-3, atol=2e-5
        )


@pytest.mark.parametrize("model_type", sorted(FAMILIES))
def test_every_family_is_observed_where_its_row_says(model_type: str, tmp_path: Path) -> None:
    """h through the down projection's own weights gives what the FFN writes; gates are seen before their activation."""
    family = FAMILIES[model_type]
    loaded = plain(build_model(model_type, tmp_path), dtype=torch.float32)
    h: dict[int, torch.Tensor] = {}
    written: dict[int, torch.Tensor] = {}
    stack = submodule(loaded, family.layers)
    for i, layer in enumerate(stack):
        submodule(layer, family.down).register_forward_hook(lambda _m, _a, out, i=i: written.__setitem__(i, out))
    with torch.no_grad(), observe(loaded, family, h.__setitem__):
        getattr(loaded, family.body)(torch.tensor([[5, 6, 7]]), use_cache=False)
    for i, layer in enumerate(stack):
        bias = getattr(submodule(layer, family.down), "bias", None)
        expected = h[i].reshape(3, -1) @ down_weight(layer, family).T + (0 if bias is None else bias)
        torch.testing.assert_close(written[i].reshape(3, -1), expected, rtol=1e-4, atol=1e-4)
        assert h[i].shape[-1] == 96
    stats = collect(
        InMemory(loaded, family),
        CalibrationSet(
            model="m", model_hash="w", target_source="t", distractor_sources=(), tokens="all", items=items([4, 6], 1)
        ),
        gate=family.gate is not None,
    )
    assert stats.down_norm.shape == (3, 96)
    if family.gate:
        assert stats.target.gate_open is not None and 0 < stats.target.gate_open.mean() < 1


def test_bf16_forward_keeps_exact_moments(model) -> None:  # type: ignore[no-untyped-def]
    """The sums of a BF16 forward against FP64 sums of the same BF16 activations."""
    import copy

    half, seen = copy.deepcopy(model).bfloat16(), []
    chosen = items([20, 20, 20], 5)
    stats = collect(
        InMemory(half, FAMILIES["qwen2"]),
        CalibrationSet(model="m", model_hash="w", target_source="t", distractor_sources=(), tokens="all", items=chosen),
    )
    for batch in batches([item for item in chosen if item.target]):
        ids, attention, mask = pad(batch, "cpu")
        with (
            torch.no_grad(),
            observe(half, FAMILIES["qwen2"], lambda layer, h, m=mask: layer == 0 and seen.append(h[m.bool()])),
        ):
            half.model(ids, attention_mask=attention)
    exact = torch.cat(seen).double().square().mean(0).numpy()
    np.testing.assert_allclose(stats.target.mean_square[0], exact, rtol=1e-5, atol=1e-9)


def test_bf16_forward_keeps_exact_second_moments_and_prompt_moments(model, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """H and the moments behind S, in FP32 and FP64 sums of BF16 activations, against FP64 throughout."""
    import copy

    half, chosen = (
        copy.deepcopy(model).bfloat16(),
        CalibrationSet(
            model="m",
            model_hash="w",
            target_source="t",
            distractor_sources=(),
            tokens="all",
            items=items([20, 20, 20], 5),
        ),
    )
    stats = collect(InMemory(half, FAMILIES["qwen2"]), chosen, moments=SecondMoments(chosen, 0.0, tmp_path))
    rows, means = [], []
    for batch in batches([item for item in chosen.items if item.target]):
        ids, attention, mask = pad(batch, "cpu")
        seen: dict[int, torch.Tensor] = {}
        with torch.no_grad(), observe(half, FAMILIES["qwen2"], seen.__setitem__):
            half.model(ids, attention_mask=attention)
        rows.append(seen[1][mask.bool()].double())
        means += [h[m.bool()].double().abs().mean(0) for h, m in zip(seen[1], mask, strict=True)]
    h, m = torch.cat(rows), torch.stack(means)
    exact = (h.T @ h / len(h)).numpy()
    np.testing.assert_allclose(second_moments.load(tmp_path, 1), exact, rtol=1e-5, atol=1e-6 * exact.max())
    np.testing.assert_allclose(stats.target.prompts.mean[1], m.mean(0), rtol=1e-6)
    np.testing.assert_allclose(stats.target.prompts.m2[1], ((m - m.mean(0)) ** 2).sum(0), rtol=1e-4)


def test_no_hook_is_left_after_an_exception(model) -> None:  # type: ignore[no-untyped-def]
    def fail(_layer: int, _h: torch.Tensor) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError), observe(model, FAMILIES["qwen2"], fail):
        model.model(torch.tensor([[1, 2]]))
    assert not any(layer.mlp.down_proj._forward_pre_hooks for layer in model.model.layers)


def test_nan_in_the_weights_is_refused_by_name(model) -> None:  # type: ignore[no-untyped-def]
    weight = model.model.layers[1].mlp.up_proj.weight
    kept = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] = float("nan")
    try:
        with pytest.raises(UnsupportedModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds NaN"):
            InMemory(model, FAMILIES["qwen2"])
    finally:
        with torch.no_grad():
            weight[0, 0] = kept

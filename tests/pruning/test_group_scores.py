"""Statistics, removal order and re-fit of KV groups, against their definitions computed naively."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.core.types.calibration import CalibrationSet
from pruning import compensation, second_moments
from pruning.checkpoint import open_model, seen_from
from pruning.collect import collect
from pruning.export import export
from pruning.group_statistics import side_by_side
from pruning.layer_source import InMemory
from pruning.loader import load_pruned
from pruning.masked import load_masked
from pruning.obs import group_removal_order, refit, removal_scores
from pruning.plan_file import load_plan, save_plan
from pruning.scores import score
from tests.pruning.test_obs import best_loss, damped, layer
from tests.support.calibration import CALIBRATION
from tests.support.models import plain
from tests.support.structures import GROUPS, HEAD, grouped_model, ids, logits, without

pytestmark = pytest.mark.slow


def inputs_of_o_proj(folder: Path, calibration: CalibrationSet) -> list[list[np.ndarray]]:
    """For each prompt the layers' inputs of o_proj at its scored tokens, [tokens, channels]; one prompt at a time."""
    model, found = plain(folder, dtype=torch.float32), []
    for item in calibration.items:
        seen: list[np.ndarray] = []
        hooks = [
            each.self_attn.o_proj.register_forward_pre_hook(
                lambda _, args, seen=seen, item=item: seen.append(args[0][0, item.start : item.stop].numpy())
            )
            for each in model.model.layers
        ]
        with torch.no_grad():
            model(torch.tensor([item.token_ids]))
        for hook in hooks:
            hook.remove()
        found.append(seen)
    return found


def test_s_of_a_kv_group_is_the_formula_on_the_mean_size_of_its_query_heads(tmp_path: Path) -> None:
    """m_ig = the mean over prompt i's tokens and the channels of group g's query heads of |a|; S as of neurons. RMS is
    the root mean square of the same channels times the Frobenius norm of their columns.
    """
    model = open_model(grouped_model("llama", tmp_path / "model"))
    read = seen_from(model, "attention")
    stats = collect(InMemory(load_pruned(model, torch.float32), read.family), CALIBRATION, units=GROUPS)
    found = score(stats, ["smd", "rms"])
    heads = [[a.reshape(len(a), GROUPS, 2 * HEAD) for a in each] for each in inputs_of_o_proj(model.path, CALIBRATION)]
    sizes = np.array([[np.abs(a).mean(axis=(0, 2)) for a in each] for each in heads])  # [prompts, layers, groups]
    target = np.array([item.target for item in CALIBRATION.items])
    expected = (sizes[target].mean(0) - sizes[~target].mean(0)) / (sizes.std(axis=0) + 1e-6)
    np.testing.assert_allclose(found["smd"], expected, rtol=1e-3)
    state = plain(model.path, dtype=torch.float32).state_dict()
    for number in range(3):
        tokens = np.concatenate([each[number] for each, mine in zip(heads, target, strict=True) if mine])
        weight = state[f"model.layers.{number}.self_attn.o_proj.weight"].numpy().reshape(96, GROUPS, 2 * HEAD)
        norm = np.sqrt((weight**2).sum(axis=(0, 2)))
        np.testing.assert_allclose(found["rms"][number], np.sqrt((tokens**2).mean(axis=(0, 2))) * norm, rtol=1e-4)


def test_two_blocks_of_a_layer_are_two_units(tmp_path: Path) -> None:
    model = open_model(grouped_model("llama", tmp_path / "model"))
    loaded = load_pruned(model, torch.float32)
    views = [seen_from(model, block).family for block in ("attention", "ffn")]
    parts = [collect(InMemory(loaded, family), CALIBRATION, units=1) for family in views]
    both = score(side_by_side(parts), ["smd", "rms", "auroc"])
    for name, table in both.items():
        alone = [score(part, [name])[name] for part in parts]
        np.testing.assert_array_equal(table, np.concatenate(alone, axis=1))


def naive_groups(weight: torch.Tensor, h: torch.Tensor, groups: int) -> tuple[list[int], list[float]]:
    """Each step tries every group and computes the loss of the best re-fit without it, from scratch."""
    size = weight.shape[1] // groups
    left, order, total = list(range(groups)), [], [0.0]
    while len(left) > 1:
        kept = {g: [c for other in left if other != g for c in range(other * size, (other + 1) * size)] for g in left}
        losses = {g: best_loss(weight.double(), damped(h), columns) for g, columns in kept.items()}
        order.append(min(losses, key=losses.__getitem__))
        left.remove(order[-1])
        total.append(losses[order[-1]])
    return [*order, *left], list(np.diff(total))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_groups_is_the_greedy_one(seed: int) -> None:
    weight, _, h = layer(seed)
    order, losses = group_removal_order(weight, h, 8)
    expected, costs = naive_groups(weight, h, 8)
    assert order.tolist() == expected
    np.testing.assert_allclose(losses[:-1].numpy(), costs, rtol=1e-6)
    scores = removal_scores(weight, h, groups=8)
    assert np.argsort(scores).tolist() == expected


def test_o_proj_is_re_fitted_to_what_remains_of_its_inputs(tmp_path: Path) -> None:
    """The re-fit on E[a a^T] of the hooked inputs of the target's prompts; export and masked model have its columns."""
    model = open_model(grouped_model("llama", tmp_path / "dense"))
    plan = replace(without(model.path, "kv_group", kv_keep=((0, 2), (1, 2), (0, 1))), compensated=True)
    save_plan(plan, tmp_path / "plan.safetensors")
    read = seen_from(model, "attention")
    moments = second_moments.SecondMoments(CALIBRATION, 0.0, tmp_path / "moments", "attention")
    second_moments.measure(InMemory(load_pruned(model, torch.float32), read.family), moments)
    compensation.compensate(
        model, plan, tmp_path / "plan.safetensors", lambda number: second_moments.load(tmp_path / "moments", number)
    )
    columns = compensation.load_layers(model, plan, tmp_path / "plan.safetensors")
    targets = [
        seen
        for seen, item in zip(inputs_of_o_proj(model.path, CALIBRATION), CALIBRATION.items, strict=True)
        if item.target
    ]
    state = plain(model.path, dtype=torch.float32).state_dict()
    for number, groups in enumerate(plan.kv_keep):
        a = torch.from_numpy(np.concatenate([seen[number] for seen in targets]))
        keep = torch.tensor([c for g in groups.tolist() for c in range(g * 2 * HEAD, (g + 1) * 2 * HEAD)])
        weight = state[f"model.layers.{number}.self_attn.o_proj.weight"]
        torch.testing.assert_close(
            columns(number)["self_attn.o_proj.weight"].double(),
            refit(weight, a.T @ a / len(a), keep),
            rtol=1e-2,
            atol=1e-3,
        )
        assert (columns(number)["self_attn.o_proj.weight"] - weight[:, keep]).abs().max() > 0.01
    made = export(model, load_plan(tmp_path / "plan.safetensors"), tmp_path / "pruned", tmp_path / "plan.safetensors")
    with torch.no_grad():
        masked = load_masked(model, plan, tmp_path / "plan.safetensors", torch.float32)(ids()).logits
    torch.testing.assert_close(logits(made.path), masked, rtol=1e-5, atol=1e-4)

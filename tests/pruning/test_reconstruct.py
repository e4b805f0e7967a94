"""Reconstructed layers through the plan's files: the errors that are reported against whole forward passes of the
exported checkpoint, and what the export, the masked model and a live swap make of the tensors.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.core.errors import UsageError
from pruning import compensation, layer_walk, second_moments
from pruning.checkpoint import open_model
from pruning.export import export, ffn_tensors
from pruning.families import FAMILIES, submodule
from pruning.fitting import Schedule
from pruning.layer_source import InMemory
from pruning.loader import load_pruned
from pruning.masked import load_masked
from pruning.plan import PlanRequest, check_request
from pruning.plan_file import load_plan, save_plan
from pruning.reconstruct import LayerReconstruction
from pruning.record import read_record
from pruning.structures import kept_layers
from tests.support.calibration import CALIBRATION, LARGER
from tests.support.models import build_model
from tests.support.pruned import compensated, plan_for, reconstructed

pytestmark = pytest.mark.slow

FAMILIES_OF_EACH_KIND = ["qwen2", "phi3", "gpt2", "opt", "gemma3_text", "gpt_neox"]


def outputs(folder: Path, layer: int) -> torch.Tensor:
    """What a layer writes at the scored tokens of the prompts that are held out: every tenth of the target's."""
    model, seen = load_pruned(folder, torch.float32), []
    family = FAMILIES[model.config.model_type]
    hook = submodule(model, family.layers)[layer].register_forward_hook(lambda _m, _i, out: seen.append(out))
    items = [item for item in LARGER.items if item.target][::10]
    with hook, torch.no_grad():
        for item in items:
            getattr(model, family.body)(torch.tensor([item.token_ids]))
    return torch.cat([out.flatten(0, 1)[item.start : item.stop] for out, item in zip(seen, items, strict=True)])


@pytest.mark.parametrize(
    ("model_type", "removed", "bare"),
    [
        *((name, (), ()) for name in FAMILIES_OF_EACH_KIND),
        ("qwen2", (1,), ()),
        ("qwen2", (0, 2), ()),
        ("qwen2", (), (1, 2)),
        ("llama", (0,), (2,)),
    ],
)
def test_the_errors_are_those_of_the_exported_checkpoint(
    model_type: str, removed: tuple[int, ...], bare: tuple[int, ...], tmp_path: Path
) -> None:
    dense, plan, plan_file, fits = reconstructed(model_type, tmp_path, removed=removed, bare=bare)
    made = export(open_model(dense), plan, tmp_path / "pruned", plan_file)
    assert len(made.widths) == len(fits) == 3 - len(removed)
    for place, (layer, fit) in enumerate(zip(kept_layers(plan), fits, strict=True)):
        written, wanted = outputs(made.path, place), outputs(dense, layer)
        error = ((written - wanted).square().sum(-1) / wanted.square().sum(-1)).mean()
        assert fit.after == pytest.approx(float(error), rel=1e-3)
        assert fit.after <= fit.before
    assert fits[0].after < fits[0].before


@pytest.mark.parametrize("model_type", FAMILIES_OF_EACH_KIND)
def test_export_masked_model_and_live_swap_have_the_same_tensors(model_type: str, tmp_path: Path) -> None:
    dense, plan, plan_file, _ = reconstructed(model_type, tmp_path)
    model, ids = open_model(dense), torch.tensor([CALIBRATION.items[0].token_ids])
    made = export(model, plan, tmp_path / "pruned", plan_file)
    with torch.no_grad():
        masked = load_masked(model, plan, plan_file, torch.float32)(ids).logits
        torch.testing.assert_close(load_pruned(made, torch.float32)(ids).logits, masked, rtol=1e-4, atol=1e-4)
    stored = load_file(made.path / "model.safetensors")
    for layer, tensors in ffn_tensors(model, plan, plan_file):
        for name, tensor in tensors.items():
            ending = f".{layer}.{name}"
            assert torch.equal(tensor, next(kept for key, kept in stored.items() if key.endswith(ending)))
    assert read_record(made.path)["steps"][-1]["reconstructed"] is True  # type: ignore[index]
    assert "each FFN optimised" in (made.path / "README.md").read_text()


def test_nothing_removed_leaves_every_tensor_as_it_is(tmp_path: Path) -> None:
    dense, plan, plan_file, fits = reconstructed("qwen2", tmp_path, width=96)
    made = export(open_model(dense), plan, tmp_path / "same", plan_file)
    before, after = load_file(dense / "model.safetensors"), load_file(made.path / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert [(fit.epoch, fit.before, fit.after) for fit in fits] == [(0, 0.0, 0.0)] * 3


def test_a_rate_that_diverges_leaves_the_re_fit(tmp_path: Path) -> None:
    *_, fits = reconstructed("qwen2", tmp_path, schedule=Schedule(epochs=2, rates=(1e3,)))
    assert all(fit.epoch == 0 and fit.after == fit.before for fit in fits)


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    files = [compensation.columns_file(reconstructed("qwen2", tmp_path / name)[2]) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("was", ["re-fitted alone", "reconstructed"])
def test_a_file_that_is_not_what_the_plan_says_is_refused(was: str, tmp_path: Path) -> None:
    """A process that is stopped between the re-fit and the reconstruction leaves the columns alone."""
    dense, plan, plan_file, _ = reconstructed("qwen2", tmp_path)
    model = open_model(dense)
    held: Any = {layer: compensation.load_layers(model, plan, plan_file)(layer) for layer in range(3)}
    told = replace(plan, reconstructed=was == "re-fitted alone")
    save_plan(told, plan_file)
    compensation.save(replace(plan, reconstructed=not told.reconstructed), plan_file, model, held.__getitem__)
    with pytest.raises(UsageError, match=r"does not hold .* make the plan again"):
        export(model, load_plan(plan_file), tmp_path / "out", plan_file)
    with pytest.raises(UsageError, match="does not hold"):
        load_masked(model, load_plan(plan_file), plan_file, torch.float32)


def test_a_plan_says_that_it_is_reconstructed_and_others_are_as_they_were(tmp_path: Path) -> None:
    plan = replace(plan_for(build_model("qwen2", tmp_path / "dense")), compensated=True)
    save_plan(plan, tmp_path / "a")
    save_plan(replace(plan, reconstructed=True), tmp_path / "b")
    assert b"reconstructed" not in (tmp_path / "a").read_bytes() and not load_plan(tmp_path / "a").reconstructed
    assert load_plan(tmp_path / "b").reconstructed


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (PlanRequest(0.5, reconstructed=True), "add --compensate, or leave out --reconstruct"),
        (
            PlanRequest(0.5, compensated=True, reconstructed=True, structure="kv_group"),
            "not what lost KV groups; leave it out",
        ),
    ],
)
def test_what_cannot_be_reconstructed_is_refused_before_scoring(request_: PlanRequest, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_request(request_, 8)


def fitted(dense: Path, start: Any, keep: Any, folder: Path) -> tuple[list[Any], int]:
    """All layers reconstructed anew, and how often an attention was computed."""
    model = open_model(dense)
    source, seen = InMemory(load_pruned(dense, torch.float32), model.family), []
    for layer in submodule(source.model, model.family.layers):
        layer.self_attn.o_proj.register_forward_hook(lambda *_: seen.append(1))
    moments = second_moments.SecondMoments(LARGER, 0.0, folder)
    walk = LayerReconstruction(source, range(3), moments, Schedule(epochs=4, rates=(0.02,)))
    found = [walk.fit(layer, keep[layer], start(layer)).tensors for layer in range(3)]
    return found, len(seen) // len(walk.pruned.batches)


def test_attention_is_computed_once_a_batch_unless_its_states_are_too_large_for_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for the dense layer and once for the pruned one."""
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    start = compensation.load_layers(open_model(dense), plan, plan_file)
    in_memory, few = fitted(dense, start, plan.keep, tmp_path / "memory")
    monkeypatch.setattr(layer_walk, "_MEMORY_SHARE", 0.0)
    in_files, many = fitted(dense, start, plan.keep, tmp_path / "files")
    assert few == 3 * 2 and many > 3 * 4
    for one, other in zip(in_memory, in_files, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)

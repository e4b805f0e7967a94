"""One pass over the prompts: what is kept between layers, resumed after a kill, and copied to the host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.types.calibration import CalibrationSet
from harness.core.types.pruning import ActivationStats
from pruning import collect as collecting
from pruning import layer_walk, second_moments
from pruning import token_means as summing
from pruning.checkpoint import open_model
from pruning.collect import collect
from pruning.families import FAMILIES
from pruning.layer_source import FromShards, InMemory
from pruning.loader import load_pruned
from pruning.second_moments import SecondMoments
from tests.support.calibration import items
from tests.support.models import build_model
from tests.support.transfers import counted

pytestmark = pytest.mark.slow

QWEN2 = FAMILIES["qwen2"]


def prompts(lengths: list[int]) -> CalibrationSet:
    chosen = items(lengths, 3)
    return CalibrationSet(
        model="m", model_hash="w", target_source="t", distractor_sources=(), tokens="all", items=chosen
    )


LONG = prompts([700, 800, 900, 1000])  # a batch for each few


@pytest.fixture(scope="module")
def source(random_model: Path) -> InMemory:
    return InMemory(load_pruned(random_model, torch.float32), QWEN2)


def assert_equal(found: ActivationStats, expected: ActivationStats) -> None:
    np.testing.assert_array_equal(found.down_norm, expected.down_norm)
    for group, other in ((found.target, expected.target), (found.distractor, expected.distractor)):
        np.testing.assert_array_equal(group.prompts.m2, other.prompts.m2)
        for name in ("mean_abs", "mean", "mean_square", "positive", "gate_open", "sample"):
            np.testing.assert_array_equal(getattr(group, name), getattr(other, name))


@pytest.fixture
def layers_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that any walk takes its batches through."""
    seen: list[int] = []
    forward = layer_walk.LayerWalk.forward

    def watched(walk: Any, module: Any, advance: bool = True) -> None:
        seen.append(walk.layer)
        forward(walk, module, advance)

    monkeypatch.setattr(layer_walk.LayerWalk, "forward", watched)
    return seen


@pytest.mark.parametrize("share", [1.0, 0.0])
def test_a_killed_scoring_goes_on_and_gives_the_same(
    source: InMemory, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers_run: list[int]
) -> None:
    """Every layer is saved; the second is the last before the kill. Hidden states in memory, and in files."""
    monkeypatch.setattr(collecting, "_SAVE_EVERY_SECONDS", -1.0)
    monkeypatch.setattr(layer_walk, "_MEMORY_SHARE", share)
    partial, moments = tmp_path / "p", SecondMoments(LONG, 0.0, tmp_path / "moments")
    whole = collect(source, LONG, gate=True, moments=SecondMoments(LONG, 0.0, tmp_path / "whole"))
    seen: list[int] = []

    def kill(done: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(source, LONG, gate=True, progress=kill, partial=partial, moments=moments)
    assert any(partial.iterdir())
    layers_run.clear()
    assert_equal(collect(source, LONG, gate=True, partial=partial, moments=moments), whole)
    assert layers_run == [1, 2], "finished layers were run again"
    for layer in range(3):
        found, expected = (second_moments.load(tmp_path / name, layer) for name in ("moments", "whole"))
        assert torch.equal(found, expected)
    layers_run.clear()
    assert_equal(collect(source, LONG, gate=True, partial=partial, moments=moments), whole)
    assert layers_run == []
    assert len(collect(source, LONG, partial=partial).down_norm) == 3 and layers_run == [0, 1, 2], "gates are another"


def test_a_layer_without_its_second_moments_is_run_again(
    source: InMemory, tmp_path: Path, layers_run: list[int]
) -> None:
    partial, moments = tmp_path / "p", SecondMoments(LONG, 0.0, tmp_path / "moments")
    collect(source, LONG, partial=partial, moments=moments)
    second_moments.layer_file(moments.folder, 1).unlink()
    collect(source, LONG, partial=partial, moments=moments)
    assert layers_run == [0, 1, 2, 0, 1, 2] and moments.missing(range(3)) == []


def test_hidden_states_in_files_give_the_same_and_are_removed(
    source: InMemory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    within = collect(source, LONG, gate=True)
    monkeypatch.setattr(layer_walk, "_MEMORY_SHARE", 0.0)
    assert_equal(collect(source, LONG, gate=True, partial=tmp_path / "p"), within)
    assert [path.name for path in (tmp_path / "p").glob("hidden-*")] == ["hidden-0003"]
    moments = SecondMoments(LONG, 0.0, tmp_path / "moments")
    second_moments.measure(source, moments)
    assert {path.name.partition("-")[0] for path in moments.folder.iterdir()} == {"layer"}


def test_copies_between_host_and_device_are_a_constant_number_for_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2 and of 4 layers, and of 4 and of 8 batches; the CPU stands for a GPU, so it takes the GPU's way."""
    monkeypatch.setattr(summing, "_on_cpu", summing._on_gpu)
    found = {}
    for layers in (2, 4):
        folder = build_model("qwen2", tmp_path / str(layers), num_hidden_layers=layers)
        measured = InMemory(load_pruned(folder, torch.float32), QWEN2)
        for lengths in ([1000] * 8, [1000] * 16):
            with counted() as copies:
                collect(measured, prompts(lengths), gate=True)
            found[layers, len(lengths)] = copies
    assert found[2, 8] == found[4, 8] and found[2, 16] == found[4, 16], "none for each layer"
    assert sum((found[2, 16] - found[2, 8]).values()) <= 6 * 4, "few for each of four more batches"


def test_layers_from_the_shards_resume_what_a_whole_model_began(
    random_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers_run: list[int]
) -> None:
    """After the kill less memory may be free than before."""
    monkeypatch.setattr(collecting, "_SAVE_EVERY_SECONDS", -1.0)
    source = InMemory(load_pruned(random_model, torch.float32), QWEN2)
    whole = collect(source, LONG)
    calls = iter((None, None, KeyboardInterrupt()))

    def kill(_done: int) -> None:
        if error := next(calls):
            raise error

    with pytest.raises(KeyboardInterrupt):
        collect(source, LONG, progress=kill, partial=tmp_path / "p")
    layers_run.clear()
    streamed = FromShards(open_model(random_model), torch.float32, "cpu", LONG)
    found = collect(streamed, LONG, partial=tmp_path / "p")
    np.testing.assert_allclose(found.target.mean_square, whole.target.mean_square, rtol=1e-5)
    assert layers_run == [1, 2]

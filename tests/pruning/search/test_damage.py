"""KL of the probe against transformers on what pruning writes, with the softmax in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.errors import UsageError
from harness.core.types.calibration import CalibrationItem
from pruning import compensation, second_moments
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import FAMILIES, submodule
from pruning.layer_source import InMemory
from pruning.loader import load_pruned
from pruning.plan_file import save_plan
from pruning.search.choices import LayerChoice
from pruning.search.damage import DamageProbe
from pruning.search.table import DamageTable, load_table, measure_damage
from tests.support.calibration import CALIBRATION, items
from tests.support.models import build_model, plain
from tests.support.pruned import plan_keeping

pytestmark = pytest.mark.slow

TEXTS = items([21, 9, 14], seed=5)
ORDER = [np.random.default_rng(layer).permutation(96).astype(np.int32) for layer in range(3)]
WHOLE, GONE = LayerChoice(96), LayerChoice(0, attention=False)


def kl(dense: Any, changed: Any, texts: Sequence[CalibrationItem]) -> float:
    """Of the next token before each scored one, per scored token, one text at a time."""
    total, tokens = 0.0, 0
    for text in texts:
        p, q = (log_softmax(model(torch.tensor([text.token_ids])).logits[0]) for model in (dense, changed))
        for token in range(max(text.start, 1), text.stop):
            total += float((np.exp(p[token - 1]) * (p[token - 1] - q[token - 1])).sum())
            tokens += 1
    return total / tokens


def log_softmax(logits: torch.Tensor) -> np.ndarray:
    exact = logits.detach().numpy().astype(np.float64)
    exact -= exact.max(axis=-1, keepdims=True)
    return exact - np.log(np.exp(exact).sum(axis=-1, keepdims=True))


def probe_of(folder: Path, moments: Path, texts: Sequence[CalibrationItem] = TEXTS) -> DamageProbe:
    model = open_model(folder)
    source = InMemory(load_pruned(model, torch.float32), model.family)
    second_moments.measure(source, second_moments.SecondMoments(CALIBRATION, 0.0, moments))
    return DamageProbe(source, texts, ORDER, lambda layer: second_moments.load(moments, layer))


@pytest.fixture(scope="module")
def probe(random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> DamageProbe:
    return probe_of(random_model, tmp_path_factory.mktemp("moments"))


def pruned(folder: Path, moments: Path, root: Path, widths: tuple[int, ...]) -> Any:
    """The checkpoint of a plan with re-fitted columns, read by transformers."""
    plan = plan_keeping(folder, [order[:width] for order, width in zip(ORDER, widths, strict=True)], compensated=True)
    plan, file, opened = replace(plan, allocation="search"), root / "plan.safetensors", open_model(folder)
    save_plan(plan, file)
    compensation.compensate(opened, plan, file, lambda layer: second_moments.load(moments, layer))
    return load_pruned(export(opened, plan, root / "pruned", file), torch.float32)


@pytest.mark.parametrize(
    ("model_type", "widths"),
    [("llama", (96, 40, 64)), ("gpt2", (40, 40, 40)), ("opt", (40, 64, 96)), ("gemma2", (64, 96, 40))],
)
def test_the_damage_is_that_of_the_written_checkpoint(model_type: str, widths: tuple[int, ...], tmp_path: Path) -> None:
    dense = build_model(model_type, tmp_path / "dense", tie=True)
    probe = probe_of(dense, tmp_path / "moments")
    changed = pruned(dense, tmp_path / "moments", tmp_path, widths)
    found = probe.nats(list(map(LayerChoice, widths)))
    assert found == pytest.approx(kl(plain(dense, dtype=torch.float32), changed, TEXTS), rel=1e-3)
    assert found > 1e-3


def test_a_removed_layer_is_a_model_without_it(probe: DamageProbe, random_model: Path) -> None:
    shorter = plain(random_model, dtype=torch.float32)
    del shorter.model.layers[1]
    expected = kl(plain(random_model, dtype=torch.float32), shorter, TEXTS)
    assert probe.nats([WHOLE, GONE, WHOLE]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bare", [(1,), (1, 2)])
def test_a_layer_without_attention_is_a_model_whose_o_proj_is_zero(
    probe: DamageProbe, random_model: Path, bare: tuple[int, ...]
) -> None:
    changed = plain(random_model, dtype=torch.float32)
    for layer in bare:
        changed.model.layers[layer].self_attn.o_proj.weight.data.zero_()
    expected = kl(plain(random_model, dtype=torch.float32), changed, TEXTS)
    found = probe.nats([LayerChoice(96, attention=layer not in bare) for layer in range(3)])
    assert found == pytest.approx(expected, rel=1e-3) and found > 1e-4
    assert probe.nats([WHOLE] * 3) == 0, "it is back"


def test_every_layer_may_be_removed(probe: DamageProbe, random_model: Path) -> None:
    bare = plain(random_model, dtype=torch.float32)
    bare.model.layers = torch.nn.ModuleList()
    expected = kl(plain(random_model, dtype=torch.float32), bare, TEXTS)
    assert probe.nats([GONE] * 3) == pytest.approx(expected, rel=1e-3)


def test_the_dense_model_is_no_damage_and_is_back_afterwards(random_model: Path, tmp_path: Path) -> None:
    probe = probe_of(random_model, tmp_path)
    before = {name: value.clone() for name, value in probe.source.model.state_dict().items()}
    choices = [LayerChoice(16), GONE, LayerChoice(48, attention=False)]
    first = probe.nats(choices)
    assert probe.nats([WHOLE] * 3) == 0 and probe.nats(choices) == first
    assert all(torch.equal(value, before[name]) for name, value in probe.source.model.state_dict().items())
    assert not any("forward" in vars(layer) for layer in submodule(probe.source.model, FAMILIES["qwen2"].layers))


def test_weights_are_back_after_a_failed_measurement(random_model: Path, tmp_path: Path) -> None:
    probe = probe_of(random_model, tmp_path)
    before = {name: value.clone() for name, value in probe.source.model.state_dict().items()}
    arguments, named = probe.batches[0].calls[1]
    probe.batches[0].calls[1] = (arguments, {**named, "position_embeddings": None})  # what the layer cannot run with
    with pytest.raises(TypeError):
        probe.nats([WHOLE, LayerChoice(16), WHOLE])
    assert all(torch.equal(value, before[name]) for name, value in probe.source.model.state_dict().items())


def test_texts_without_a_token_to_predict_are_refused(random_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="held-out"):
        probe_of(random_model, tmp_path, [CalibrationItem(True, (5, 6, 7), 0, 1)])


def test_the_table_changes_one_layer_at_a_time(probe: DamageProbe) -> None:
    choices, seen = (WHOLE, LayerChoice(48), GONE), []
    table = measure_damage(probe, choices, seen.append)
    assert table.nats.shape == (3, 3) and (table.nats[:, 0] == 0).all() and seen == [1, 1, 1]
    assert table.nats[2, 1] == probe.nats([WHOLE, WHOLE, LayerChoice(48)])
    assert table.nats[0, 2] == probe.nats([GONE, WHOLE, WHOLE])


class Counting:
    """A probe that only counts."""

    layers, whole = 3, WHOLE

    def __init__(self, fails_at: int = 10**9) -> None:
        self.asked, self.fails_at = 0, fails_at

    def nats(self, _choices: Sequence[LayerChoice]) -> float:
        self.asked += 1
        if self.asked == self.fails_at:
            raise KeyboardInterrupt
        return float(self.asked)


def measured(fails_at: int, file: Path, key: str) -> tuple[DamageTable, int]:
    probe = Counting(fails_at)
    return measure_damage(probe, (WHOLE, GONE), file=file, key=key), probe.asked  # type: ignore[arg-type]


def test_a_killed_measurement_resumes_and_another_key_starts_over(tmp_path: Path) -> None:
    file = tmp_path / "damage"
    with pytest.raises(KeyboardInterrupt):
        measured(4, file, "a")  # in the second layer
    table, asked = measured(10**9, file, "a")
    assert asked == 4 and table.nats.tolist() == [[1, 2], [1, 2], [3, 4]]
    assert measured(10**9, file, "a")[1] == 0
    assert load_table(file, "b") is None and measured(10**9, file, "b")[1] == 6
    file.write_bytes(b"damaged")
    assert measured(10**9, file, "b")[1] == 6


def test_a_layer_is_kept_or_removed() -> None:
    for wrong in ({"width": 0}, {"width": -1, "attention": False}):
        with pytest.raises(ValueError, match="a layer of width"):
            LayerChoice(**wrong)  # type: ignore[arg-type]
    assert LayerChoice(0, attention=False).removed and not LayerChoice(3, attention=False).removed

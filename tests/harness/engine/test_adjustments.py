"""What a live variant does besides removing neurons: scaled neurons and a constant, against transformers with hooks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.errors import UsageError
from harness.engine.vllm_engine import engine
from harness.engine.weight_swap import restore, swap
from pruning.adjustments import Adjustment, adjustments_file, load_adjustments, save_adjustments
from pruning.checkpoint import open_model
from pruning.families import FAMILIES, submodule
from pruning.plan_file import save_plan
from tests.support.engines import PROMPTS, SMALL, answers
from tests.support.models import build_model, plain
from tests.support.pruned import plan_keeping

RNG = np.random.default_rng(4)
FACTORS, OFFSETS = RNG.choice([0.0, 0.5, 1.25], (3, 96)), RNG.standard_normal((3, 64))
EVERYTHING = [np.arange(96)] * 3


def test_adjustments_come_back_and_are_checked(tmp_path: Path) -> None:
    plan = tmp_path / "a.safetensors"
    assert load_adjustments(plan, [2], 3) == [Adjustment()]
    save_adjustments(plan, [Adjustment(factors=np.array([0.5, 2.0])), Adjustment(offset=np.array([1.0, 2.0, 3.0]))])
    first, second = load_adjustments(plan, [2, 4], 3)
    assert first.factors is not None and first.factors.tolist() == [0.5, 2.0] and first.offset is None
    assert second.offset is not None and second.offset.tolist() == [1, 2, 3] and second.factors is None
    for widths, hidden in (([3, 4], 3), ([2, 4], 2), ([2], 3)):
        with pytest.raises(UsageError, match="does not fit the plan beside it"):
            load_adjustments(plan, widths, hidden)


@pytest.fixture(scope="module", params=["qwen2", pytest.param("opt", marks=pytest.mark.thorough)])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without and with a bias of its own in the down projection."""
    return build_model(request.param, tmp_path_factory.mktemp(request.param) / "m")


@pytest.fixture(scope="module")
def running(model: Path) -> Iterator[Any]:
    with engine(open_model(model), SMALL) as llm:
        yield llm


def adjusted(model: Path, file: Path, adjustments: list[Adjustment]) -> Path:
    save_plan(plan_keeping(model, EVERYTHING, ratio=0.0), file)
    save_adjustments(file, adjustments)
    return file


def expected(folder: Path, factors: np.ndarray | None, offsets: np.ndarray | None) -> list[list[int]]:
    """Greedy tokens of transformers with hooks around the down projection."""
    model = plain(folder, dtype=torch.float32, attn_implementation="eager")
    model.generation_config.eos_token_id = None
    family = FAMILIES[model.config.model_type]
    for i, layer in enumerate(submodule(model, family.layers)):
        down = submodule(layer, family.down)
        if factors is not None:
            scale = torch.from_numpy(factors[i]).float()
            down.register_forward_pre_hook(lambda _, args, scale=scale: (args[0] * scale,))
        if offsets is not None:
            shift = torch.from_numpy(offsets[i]).float()
            down.register_forward_hook(lambda _, _args, out, shift=shift: out + shift)
    return [
        model.generate(torch.tensor([p]), max_new_tokens=16, do_sample=False)[0, len(p) :].tolist() for p in PROMPTS
    ]


@pytest.mark.slow
@pytest.mark.long
def test_scaled_and_shifted_engines_answer_as_transformers_with_hooks(
    model: Path, running: Any, tmp_path: Path
) -> None:
    """In this order, so that what one variant added must be gone in the next."""
    scaled = adjusted(model, tmp_path / "s.safetensors", [Adjustment(factors=row) for row in FACTORS])
    shifted = adjusted(model, tmp_path / "o.safetensors", [Adjustment(offset=row) for row in OFFSETS])
    both = [Adjustment(*pair) for pair in zip(FACTORS, OFFSETS, strict=True)]
    together = adjusted(model, tmp_path / "b.safetensors", both)
    dense = answers(running)
    cases = ((shifted, None, OFFSETS), (together, FACTORS, OFFSETS), (scaled, FACTORS, None), (shifted, None, OFFSETS))
    for file, factors, offsets in cases:
        assert adjustments_file(file).exists()
        swap(running, file)
        found = answers(running)
        assert found == expected(model, factors, offsets)
        assert found != dense
    restore(running)
    assert answers(running) == dense == expected(model, None, None)

"""A swapped engine against a fresh one on the export, token for token in FP32, with prompts longer than a cache block."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import scoring
from harness.engine import EngineConfig, engine, generate
from harness.errors import UsageError
from harness.live import swapped
from harness.types import PruningPlan
from pruning import score_file
from pruning.checkpoint import read_config
from pruning.export import export, ffn_tensors
from pruning.families import FAMILIES, family_of
from pruning.loader import load_pruned
from pruning.plan import PlanRequest, make_plan, save_plan
from tasks.registry import find_task
from tests.conftest import TINY_MATH, build_model
from tests.harness.test_families import WIDTHS, plan_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1600)]
SMALL = EngineConfig(max_model_len=512, kv_cache_bytes=1 << 26, threads=2)
PROMPTS = [[int(t) for t in np.random.default_rng(i).integers(2, 1000, 40 + 70 * i)] for i in range(4)]  # up to 250 tokens, blocks of 128
FEW = ("phi3", "opt", "gpt2", "smollm3")  # fused, no gate with biases, transposed, transformers back end
CASES = tuple(FAMILIES) if os.environ.get("HARNESS_ALL_FAMILIES") else FEW


def answers(llm: Any) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt

    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True)
    return [list(o.outputs[0].token_ids) for o in generate(llm, [TokensPrompt(prompt_token_ids=p) for p in PROMPTS], params)]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[PruningPlan, Path]]:
    """Uniform, re-fitted, and with per-layer widths."""
    folder = tmp_path_factory.mktemp("plans")
    calibration = scoring.calibrate(TINY_MATH, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(24, "both"))
    request = scoring.ScoreRequest(moments=True, threads=2)
    scoring.score_model(TINY_MATH, calibration, request, folder / "s")
    made = []
    for i, wanted in enumerate(
        (
            PlanRequest(0.5, metric="rms"),
            PlanRequest(0.5, metric="rms", compensated=True),
            PlanRequest(0.4, metric="rms", allocation="global", compensated=True),
        )
    ):
        plan, file = make_plan(score_file.load(folder / "s"), wanted), folder / str(i) / "plan.safetensors"
        save_plan(plan, file)
        if wanted.compensated:
            scoring.compensate_plan(TINY_MATH, calibration, request, folder / "s", file)
        made.append((plan, file))
    return made


def test_any_sequence_of_swaps_equals_fresh_engines_and_ends_dense(plans: list[tuple[PruningPlan, Path]], tmp_path: Path) -> None:
    expected = []
    for i, (plan, file) in enumerate(plans):
        with engine(export(TINY_MATH, plan, tmp_path / str(i), file).path, SMALL) as llm:
            expected.append(answers(llm))
    family = family_of(read_config(TINY_MATH))
    with engine(TINY_MATH, SMALL) as llm:
        dense = answers(llm)
        for i in (0, 1, 2, 1, 0):
            with swapped(llm, family, ffn_tensors(TINY_MATH, *plans[i])):
                assert answers(llm) == expected[i] != dense
            assert answers(llm) == dense


def test_a_swap_that_fails_halfway_leaves_the_dense_model(plans: list[tuple[PruningPlan, Path]]) -> None:
    def broken() -> Any:
        yield next(iter(ffn_tensors(TINY_MATH, *plans[0])))
        raise UsageError("no more")

    with engine(TINY_MATH, SMALL) as llm:
        dense = answers(llm)
        with pytest.raises(UsageError, match="no more"), swapped(llm, family_of(read_config(TINY_MATH)), broken()):
            pass
        assert answers(llm) == dense


@pytest.mark.parametrize("model_type", CASES)
def test_every_family_swapped_gives_the_tokens_of_transformers(model_type: str, tmp_path: Path) -> None:
    dense = build_model(model_type, tmp_path / "dense", tie=model_type in ("gemma2", "gemma3_text", "gpt_neox"))
    plan = plan_of(dense, WIDTHS["ragged" if FAMILIES[model_type].own_widths else "uniform"])
    model = load_pruned(export(dense, plan, tmp_path / "pruned").path, torch.float32)
    model.generation_config.eos_token_id = None
    expected = [model.generate(torch.tensor([p]), max_new_tokens=16, do_sample=False)[0, len(p) :].tolist() for p in PROMPTS]
    with engine(dense, SMALL) as llm, swapped(llm, FAMILIES[model_type], ffn_tensors(dense, plan)):
        assert answers(llm) == expected

"""A swapped engine against a fresh one on the export, token for token in FP32, with prompts longer than a cache
block.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import MeasurementError, UsageError
from harness.engine.memory_budget import cached_bytes_per_token
from harness.engine.vllm_engine import engine, kv_bytes_per_token
from harness.engine.weight_swap import restore, swap, swapped
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import open_model
from pruning.export import export, ffn_tensors
from pruning.families import FAMILIES
from pruning.loader import load_pruned
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import load_plan, save_plan
from tasks.registry import find_task
from tests.support import engines
from tests.support.engines import PROMPTS, SMALL, answers
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import WIDTHS, plan_of

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1600)]
FEW = ("phi3", "opt", "gpt2", "smollm3")  # fused, no gate with biases, transposed, transformers back end
RUNNABLE = [name for name, family in FAMILIES.items() if not family.tower or importlib.util.find_spec("torchvision")]
CASES = tuple(RUNNABLE) if os.environ.get("HARNESS_ALL_FAMILIES") else FEW


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Uniform, re-fitted, and with per-layer widths."""
    folder = tmp_path_factory.mktemp("plans")
    calibration = scoring.calibrate(
        open_model(TINY_MATH), "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(24, "all")
    )
    request = scoring.ScoreRequest(moments=True, threads=1)
    scoring.score_model(open_model(TINY_MATH), calibration, request, folder / "s")
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
            scoring.compensate_plan(open_model(TINY_MATH), calibration, request, folder / "s", file)
        made.append(file)
    return made


@pytest.fixture(scope="module")
def expected(
    plans: list[Path], shared_engine: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[list[list[int]]]]:
    """Answers of a fresh engine on the export of every plan, and of one on the dense model at the end."""
    dense = open_model(TINY_MATH)
    folders = [export(dense, load_plan(file), tmp_path_factory.mktemp("export") / "c", file).path for file in plans]
    with ExitStack() as stack:
        fresh = [stack.enter_context(engine(open_model(folder), SMALL)) for folder in folders]
        found = [answers(llm) for llm in (*fresh, shared_engine())]
        assert all(a != b for a, b in itertools.combinations(found, 2))
        yield found


@contextmanager
def weights_in_place() -> Iterator[None]:
    """Engines keep their weights as on CUDA, where they are overwritten, and do not pack them as on this CPU."""
    from vllm import _custom_ops as ops
    from vllm.model_executor.layers import utils

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "_supports_onednn", False)
        patch.setattr(utils, "check_cpu_sgl_kernel", lambda *_: False)
        yield


@contextmanager
def weights_as(way: str) -> Iterator[None]:
    with weights_in_place() if way == "in place" else nullcontext():
        yield


@pytest.fixture(scope="module", params=["packed", "in place"])
def started(request: pytest.FixtureRequest, shared_engine: Any) -> Iterator[tuple[str, Any]]:
    if request.param == "packed":
        yield request.param, shared_engine()
        return
    with ExitStack() as stack:
        with weights_as(request.param):
            llm = stack.enter_context(engine(open_model(TINY_MATH), SMALL))
        yield request.param, llm


@pytest.fixture
def running(started: tuple[str, Any]) -> Iterator[Any]:
    """An engine that packs its weights as on this CPU, and one that overwrites them as on CUDA."""
    way, llm = started
    with weights_as(way):
        kept = llm.apply_model(lambda model: model.model.layers[0].mlp.down_proj.weight.numel() > 0)
        assert kept == [way == "in place"]
        yield llm
        restore(llm)


@pytest.fixture
def dense(tiny_engine: Any) -> Iterator[Any]:
    """The shared engine, which has its own weights again afterwards."""
    yield tiny_engine
    restore(tiny_engine)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_any_sequence_of_swaps_equals_fresh_engines(
    running: Any, plans: list[Path], expected: list[list[list[int]]], sequence: list[int]
) -> None:
    """3 stands for the dense model."""
    for step in sequence:
        swap(running, plans[step]) if step < 3 else restore(running)
        assert answers(running) == expected[step]


def test_the_dense_weights_come_back_bit_for_bit(running: Any, plans: list[Path]) -> None:
    """By the sum of the FFN's outputs in exact integers: every bit of every output of every layer, for inputs of all
    sizes.
    """
    before = running.collective_rpc(ffn_bits)
    for file in plans:
        swap(running, file)
        assert running.collective_rpc(ffn_bits) != before
    restore(running)
    assert running.collective_rpc(ffn_bits) == before


def ffn_bits(worker: Any) -> list[str]:
    x = torch.randn((5, 128), generator=torch.Generator().manual_seed(0))
    return [hashlib.sha256(layer.mlp(x).numpy().tobytes()).hexdigest() for layer in worker.get_model().model.layers]


def test_a_swap_that_fails_halfway_leaves_the_dense_model(
    dense: Any, plans: list[Path], expected: list[list[list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> Any:
        yield next(iter(ffn_tensors(*arguments)))
        raise UsageError("no more")

    swap(dense, plans[1])
    monkeypatch.setattr("harness.engine.weight_swap_worker.ffn_tensors", broken)
    with pytest.raises(MeasurementError, match="cannot be loaded into the running engine: no more"):
        swap(dense, plans[0])
    assert answers(dense) == expected[3]


def test_a_plan_of_more_than_neurons_is_refused(
    dense: Any, plans: list[Path], expected: list[list[list[int]]], tmp_path: Path
) -> None:
    whole = load_plan(plans[0])
    other = replace(whole, vocabulary=np.arange(320), vocab_size=open_model(TINY_MATH).shape.vocab_size)
    save_plan(other, tmp_path / "plan.safetensors")
    swap(dense, plans[1])
    with pytest.raises(MeasurementError, match="can lose FFN neurons only; export this plan"):
        swap(dense, tmp_path / "plan.safetensors")
    assert answers(dense) == expected[3]


def test_nothing_is_swapped_under_a_request(dense: Any, plans: list[Path], expected: list[list[list[int]]]) -> None:
    from vllm import SamplingParams, TokensPrompt

    dense.llm_engine.add_request("a", TokensPrompt(prompt_token_ids=PROMPTS[0]), SamplingParams(max_tokens=4))
    dense.llm_engine.step()
    with pytest.raises(MeasurementError, match="between requests"):
        swap(dense, plans[0])
    dense.llm_engine.abort_request(["a"])
    assert answers(dense) == expected[3]


@pytest.mark.thorough
def test_swaps_do_not_add_up_in_memory(dense: Any, plans: list[Path]) -> None:
    """Two hundred swaps after a warm-up; keeping one packed copy of the FFN a swap would take 500 MiB."""
    for i in range(40):
        swap(dense, plans[i % 3])
    before = resident_bytes()
    for i in range(200):
        swap(dense, plans[i % 3])
    assert resident_bytes() - before < 32 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.thorough
def test_an_engine_in_its_own_process_swaps_as_well(plans: list[Path], expected: list[list[list[int]]]) -> None:
    """vLLM's default outside of the harness; functions cannot be sent to it, names of methods can."""
    script = Path(engines.__file__).with_name("swap_in_another_process.py")
    arguments = [str(TINY_MATH), *map(str, plans)]
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    made = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    assert json.loads(made.stdout.splitlines()[-1]) == [*expected, expected[3]]


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["packed", "in place"])
@pytest.mark.parametrize("model_type", CASES)
def test_every_family_swapped_gives_the_tokens_of_transformers(model_type: str, way: str, tmp_path: Path) -> None:
    dense = build_model(model_type, tmp_path / "dense", tie=model_type in ("gemma2", "gemma3_text", "gpt_neox"))
    plan, file = (
        plan_of(dense, WIDTHS["ragged" if FAMILIES[model_type].supports_nonuniform_widths else "uniform"]),
        tmp_path / "plan.safetensors",
    )
    save_plan(plan, file)
    model = load_pruned(export(open_model(dense), plan, tmp_path / "pruned").path, torch.float32)
    model.generation_config.eos_token_id = None
    expected = [
        model.generate(torch.tensor([p]), max_new_tokens=16, do_sample=False)[0, len(p) :].tolist() for p in PROMPTS
    ]
    with weights_as(way), engine(open_model(dense), SMALL) as llm:
        assert kv_bytes_per_token(llm) == cached_bytes_per_token(
            open_model(dense), "default"
        )  # by the engine's own specification, and by formula
        with swapped(llm, file):
            assert answers(llm) == expected

"""Stock vLLM on our exports: loaded with nothing of ours, greedy tokens equal to transformers in FP32."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.core.chat import ChatFormat
from harness.core.errors import MeasurementError
from harness.engine.devices import device_name
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engine, stream
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from tasks.mini_facts.task import items as fact_items
from tasks.mini_math.task import items as math_items
from tasks.registry import find_task
from tests.support.cli import PATIENCE
from tests.support.models import TINY_MATH, build_model

pytestmark = pytest.mark.slow
STOCK = """
import json, os, sys
os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", HF_HUB_OFFLINE="1", VLLM_PLUGINS="")
from vllm import LLM, SamplingParams
model, prompts = sys.argv[1], json.load(open(sys.argv[2]))
llm = LLM(model, dtype="float32", enforce_eager=True, max_model_len=512, kv_cache_memory_bytes=1 << 26)
params = SamplingParams(temperature=0, max_tokens=40)
out = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
assert not [m for m in sys.modules if m.split(".")[0] in ("harness", "pruning", "tasks", "reports")]
json.dump([list(o.outputs[0].token_ids) for o in out], open(sys.argv[3], "w"))
"""


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model with 20 % of its neurons removed by importance."""
    folder = tmp_path_factory.mktemp("pruned")
    calibration = scoring.calibrate(
        open_model(TINY_MATH), "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(32, "all")
    )
    scoring.score_model(open_model(TINY_MATH), calibration, scoring.ScoreRequest(threads=1), folder / "s")
    plan = make_plan(
        score_file.load(folder / "s"), PlanRequest(ratio=0.2, method="selective", metric="rms", seed=0, alignment=16)
    )
    return export(open_model(TINY_MATH), plan, folder / "checkpoint").path


@pytest.mark.thorough
def test_transformers_still_builds_a_model_that_vllm_served_with_its_classes(tmp_path: Path) -> None:
    with engine(
        open_model(build_model("smollm3", tmp_path / "a")),
        EngineSettings(max_model_len=128, kv_cache_bytes=1 << 24, threads=1),
    ):
        pass
    assert open_model(build_model("smollm3", tmp_path / "b")).shape == open_model(tmp_path / "a").shape


@pytest.mark.thorough
@pytest.mark.skipif(not shutil.which("g++"), reason="torch compiles for a CPU with g++")
def test_the_weights_of_an_ended_engine_hold_no_memory_though_its_model_was_compiled() -> None:
    """torch keeps the modules of what it has compiled; on one GPU the next engine did not find the memory."""
    settings = EngineSettings(max_model_len=128, kv_cache_bytes=1 << 24, threads=1, options={"enforce_eager": False})
    with engine(open_model(TINY_MATH), settings) as llm:
        assert llm.llm_engine.vllm_config.compilation_config.mode
        worker = llm.llm_engine.engine_core.engine_core.model_executor.driver_worker
        held = [weakref.ref(parameter) for parameter in worker.get_model().parameters()]
        assert _bytes_of(held)
    assert not _bytes_of(held)


def _bytes_of(parameters: list[Any]) -> int:
    return sum(found.untyped_storage().nbytes() for each in parameters if (found := each()) is not None)


@pytest.mark.thorough
@pytest.mark.skipif(device_name() != "cpu", reason="CUDA runs heads of this size")
def test_a_model_that_vllm_loads_and_cannot_run_is_refused_in_one_line(tmp_path: Path) -> None:
    """Heads of 16 numbers, for which the CPU backend has no attention kernel; it says so in the first forward pass."""
    from vllm import SamplingParams

    model = open_model(build_model("llama", tmp_path / "m", head_dim=16))
    with (
        pytest.raises(MeasurementError, match=rf"^vLLM cannot (run|load) {model.path}: \S+.*$"),
        engine(model, EngineSettings(max_model_len=128, kv_cache_bytes=1 << 24, threads=1)) as llm,
    ):
        list(stream(llm, [{"prompt_token_ids": [5, 6, 7]}], [SamplingParams(max_tokens=2)]))


def prompts() -> list[list[int]]:
    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    questions = [p.question for p in math_items("validation", 10)] + [
        f["question"] for f in fact_items("validation")[:6]
    ]
    chats = [[{"role": "user", "content": question}] for question in questions]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]


@pytest.mark.long
def test_stock_vllm_gives_the_tokens_of_transformers(pruned: Path, tmp_path: Path) -> None:
    asked = prompts()
    (tmp_path / "script.py").write_text(STOCK)
    (tmp_path / "prompts.json").write_text(json.dumps(asked))
    command = [sys.executable, "script.py", str(pruned), "prompts.json", "out.json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr[-2000:]
    answers = json.loads((tmp_path / "out.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(pruned, dtype=torch.float32).eval()
    for prompt, answer in zip(asked, answers, strict=True):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=40, do_sample=False)[0, len(prompt) :].tolist()
        assert answer == expected


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["hf", "vllm"])
def test_lm_evals_own_backends_take_the_export_and_our_tasks(
    backend: str, pruned: Path, ours: dict[str, float], tmp_path: Path
) -> None:
    """`lm_eval --include_path "$(harness tasks --path)"`: our scores; with no engine of ours, truncation is unknown and
    not 0.
    """
    from tasks.registry import TASKS_PATH

    extra = ",enforce_eager=True,max_model_len=512,gpu_memory_utilization=0.1" if backend == "vllm" else ""
    command = [
        str(Path(sys.executable).parent / "lm_eval"),
        "run",
        "--model",
        backend,
        "--model_args",
        f"pretrained={pruned},dtype=float32{extra}",
        "--tasks",
        ",".join(ours),
        "--include_path",
        str(TASKS_PATH),
        "--limit",
        "24",
        "--apply_chat_template",
        "--batch_size",
        "24",
        "--device",
        "cpu",
        "--output_path",
        str(tmp_path),
    ]
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(next(tmp_path.rglob("results_*.json")).read_text())["results"]
    assert {task: row.get("exact_match,raw", row.get("pass@1,raw")) for task, row in found.items()} == pytest.approx(
        ours
    )
    assert found["mini_facts"]["fail_empty,raw"] == 0.0
    assert str(found["mini_facts"]["fail_truncated,raw"]).lower() == "nan"


@pytest.fixture(scope="module")
def ours(pruned: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    tasks = tuple(find_task(name) for name in ("mini_facts", "mini_math", "mini_code"))
    with engine(open_model(pruned), EngineSettings(max_model_len=512, kv_cache_bytes=1 << 26, threads=1)) as llm:
        found = evaluate(
            llm,
            EvalSpec("pruned", tasks, 512, chat=ChatFormat(), limit=24),
            VariantEval(tmp_path_factory.mktemp("ours"), "pruned"),
        )
    return {task: result.value for task, result in found.items()}

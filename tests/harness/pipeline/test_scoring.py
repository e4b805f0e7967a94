"""Calibration with the model's own answers, and the paper's score on a real language model."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness
from harness.core import memory
from harness.core.errors import MeasurementError, StorageError, UnsupportedModelError
from harness.core.files import load_arrays
from harness.core.reasoning import left_open
from harness.core.types.calibration import CalibrationSet
from harness.engine import generate_answers
from harness.engine.memory_budget import EngineSettings
from harness.models import registry
from harness.pipeline import scoring
from pruning.checkpoint import ModelFolder, open_model
from pruning.collect import collect
from pruning.families import FAMILIES
from pruning.layer_source import InMemory
from pruning.loader import from_folder
from pruning.obs import removal_scores
from pruning.placement import Placement
from pruning.scores import score
from tasks.generation import without_reasoning
from tasks.registry import find_task
from tests.support.chat import MAY_THINK, PLAIN, model_with
from tests.support.cli import harness as harness_command
from tests.support.cli import invoke
from tests.support.models import TINY_MATH, build_model

pytestmark = pytest.mark.slow


@pytest.mark.long
def test_own_answers_are_the_models_greedy_ones() -> None:
    task = find_task("mini_math")
    calibration = scoring.calibrate(
        open_model(TINY_MATH),
        "tiny-math",
        task,
        scoring.CalibrationRequest(4, "completion", generate_completions=True, engine=EngineSettings(threads=1)),
    )
    assert calibration.target_source.endswith("answers by the model itself: 4 of 4 right, 0 with the given answer")
    model = AutoModelForCausalLM.from_pretrained(TINY_MATH, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    for item in [i for i in calibration.items if i.target]:
        prompt = item.token_ids[: item.start]
        made = model.generate(torch.tensor([prompt]), max_new_tokens=task.max_new_tokens, do_sample=False)[
            0, len(prompt) :
        ]
        text = tokenizer.decode(made, skip_special_tokens=True)
        assert tokenizer.decode(item.token_ids[item.start : item.stop]) == text
    given = scoring.calibrate(open_model(TINY_MATH), "tiny-math", task, scoring.CalibrationRequest(4, "completion"))
    assert given.hash != calibration.hash and len(given.items) == len(calibration.items)


@pytest.mark.thorough
def test_the_papers_score_on_a_real_model_is_its_definition_in_fp64() -> None:
    """SmolLM2-135M: mean |silu(gate(x)) up(x)| from the FFN's input, everything in FP64, against FP32 with the hook on
    down_proj.
    """
    folder, family = registry.locate("smollm2-135m", "math"), FAMILIES["llama"]
    calibration = scoring.calibrate(folder, "smollm2-135m", find_task("mini_math"), scoring.CalibrationRequest(6))
    model = AutoModelForCausalLM.from_pretrained(folder.path, dtype=torch.float32).eval()
    found = score(collect(InMemory(model, family), calibration), ("smd",))["smd"]
    model, groups = model.double(), {True: [], False: []}
    for item in calibration.items:
        seen: dict[int, np.ndarray] = {}

        def watch(ffn, inputs, layer: int, item=item, seen=seen) -> None:  # type: ignore[no-untyped-def]
            h = ffn.act_fn(ffn.gate_proj(inputs[0])) * ffn.up_proj(inputs[0])
            seen[layer] = h[0, item.start : item.stop].abs().mean(0).numpy()

        ffns = [layer.mlp for layer in model.model.layers]
        hooks = [
            ffn.register_forward_pre_hook(lambda ffn, inputs, i=i: watch(ffn, inputs, i)) for i, ffn in enumerate(ffns)
        ]
        with torch.no_grad():
            model.model(torch.tensor([item.token_ids]))
        for hook in hooks:
            hook.remove()
        groups[item.target].append(np.stack([seen[i] for i in range(len(seen))]))
    target, distractor = (np.stack(groups[side]) for side in (True, False))
    expected = (target.mean(0) - distractor.mean(0)) / (np.concatenate([target, distractor]).std(0) + 1e-6)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_own_answers_are_scored_with_their_reasoning_which_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the engine wrote, whether or not it ended its reasoning; no scored text stays in it."""

    def answers(_model: Any, prompts: Mapping[int, Any], sampling: Any, _threads: Any) -> dict[int, Any]:
        opened = left_open(sampling.chat.prompt_end)
        texts = ["2+2\n</think>\n\n#### 4", "2+2 is"] if opened else ["<think>2+2</think>#### 4", "<think>2+2 is"]
        return {key: without_reasoning(texts[i % 2], {}, opened) for i, key in enumerate(prompts)}

    monkeypatch.setattr(generate_answers, "generate_answers", answers)
    request = scoring.CalibrationRequest(4, "completion", generate_completions=True, engine=EngineSettings(threads=1))
    for name, template in (("may", MAY_THINK), ("plain", PLAIN)):
        model = open_model(model_with(template, tmp_path / name))
        items = scoring.calibrate(model, "m", replace(find_task("mini_math"), grade=None), request).items
        tokenizer = AutoTokenizer.from_pretrained(model.path)
        texts = [tokenizer.decode(item.token_ids) for item in items]
        assert all(text.count("<think>") == text.count("</think>") <= 1 for text in texts)
        scored = {tokenizer.decode(i.token_ids[i.start : i.stop]) for i in items if i.target}
        tag = "<think>" if template == PLAIN else ""
        assert f"{tag}2+2 is\n</think>\n\n" in scored and len(scored) == 2


def test_what_is_unusual_about_the_prompts_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_model(model_with(MAY_THINK, tmp_path / "m"))
    for arguments, said in (({}, "prompts open <think>"), ({"enable_thinking": False}, "enable_thinking=False")):
        scoring.calibrate(model, "m", find_task("mini_math"), scoring.CalibrationRequest(4, template_args=arguments))
        assert f"chat template: {'' if not arguments else 'template arguments: '}{said}" in capsys.readouterr().err
    scoring.calibrate(model, "m", find_task("mini_math"), scoring.CalibrationRequest(4, plain=True))
    assert "chat template" not in capsys.readouterr().err


def test_a_disk_without_room_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(StorageError, match=r"s needs .* KiB and 9\.8 KiB are free"):
        harness.score("tiny-math", task="mini_math", metrics=("smd",), out="s", calibration_samples=4, threads=1)
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("tensor", "factor", "message"),
    [("model.norm.weight", float("nan"), "NaN or infinity"), ("down_proj.weight", 1e30, "contrib is not finite")],
)
def test_a_refused_scoring_leaves_nothing_and_keeps_the_calibration_of_older_scores(
    tensor: str, factor: float, message: str, tmp_path: Path
) -> None:
    """Weights that are no numbers are seen once the model is loaded, others once it has run."""
    model = model_with(PLAIN, tmp_path / "m")
    tensors = load_file(model / "model.safetensors")
    damaged = {name: values * factor if name.endswith(tensor) else values for name, values in tensors.items()}
    save_file(damaged, model / "model.safetensors", {"format": "pt"})
    Path("s.calibration.json").write_text("of older scores")
    with pytest.raises(UnsupportedModelError, match=message):
        harness.score(str(model), task="mini_math", metrics=("smd",), out="s", calibration_samples=4, threads=1)
    assert sorted(path.name for path in Path().iterdir()) == ["m", "s.calibration.json"]
    assert Path("s.calibration.json").read_text() == "of older scores"


def tiny_request() -> tuple[ModelFolder, CalibrationSet, scoring.ScoreRequest]:
    model = open_model(TINY_MATH)
    prompts = scoring.calibrate(model, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(4))
    return model, prompts, scoring.ScoreRequest(("obs", "lape"), moments=True, threads=1)


def test_a_model_that_does_not_fit_has_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Main memory for the model as a whole, and for one layer with its batch and no more."""
    model, prompts, request = tiny_request()
    tables = {}
    for name, free in (("whole", 1 << 40), ("layers", 93_000_000)):
        monkeypatch.setattr(memory, "available_bytes", lambda free=free: free)
        scoring.score_model(model, prompts, request, tmp_path / name)
        tables[name] = load_arrays(tmp_path / name, "harness score")[0]
        assert not scoring.partial_folder(tmp_path / name).exists()
    said = capsys.readouterr().err
    assert "whole model in memory" in said and "layer by layer from the shards" in said
    assert tables["whole"].keys() == tables["layers"].keys()
    for key, values in tables["whole"].items():
        np.testing.assert_allclose(tables["layers"][key], values, rtol=1e-3, atol=1e-6, err_msg=key)


def test_the_model_is_gone_before_removal_orders_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, request = tiny_request()
    opened: list[Any] = []
    open_source = scoring.open_source

    def opening(*arguments: Any) -> Any:
        source = open_source(*arguments)
        opened.append(weakref.ref(source.model))
        return source

    def removing(*arguments: Any, **named: Any) -> Any:
        assert [model() for model in opened] == [None]
        return removal_scores(*arguments, **named)

    monkeypatch.setattr(scoring, "open_source", opening)
    monkeypatch.setattr("harness.pipeline.scoring.removal_scores", removing)
    scoring.score_model(model, prompts, request, tmp_path / "s")
    assert len(opened) == 1


def test_a_dry_run_says_where_the_weights_are_and_refuses_what_the_scoring_would(tmp_path: Path) -> None:
    found, _ = invoke("score", "tiny-math", "--task", "mini_math", "--dry-run", "--json", "--out", "s")
    assert found["scoring"]["source"] == "whole" and found["prompts"] == 480 and not Path("s").exists()
    (tmp_path / "folder").mkdir()
    opt = str(build_model("opt", tmp_path / "opt"))
    for arguments, reason in (
        (("tiny-math", "--out", str(tmp_path / "folder")), "is a folder"),
        ((opt, "--metric", "lape", "--out", "s"), "opt has no gate, which lape needs"),
    ):
        command = ("score", *arguments, "--task", "mini_math")
        real, dry = (harness_command(*command, *more).stderr.splitlines()[-1] for more in ((), ("--dry-run",)))
        assert real == dry and reason in dry


def test_a_model_of_which_accelerate_leaves_a_part_on_the_host_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, _ = tiny_request()

    def loading(folder: ModelFolder, **options: Any) -> Any:
        assert options.pop("device_map") == "auto"
        loaded = from_folder(folder, **options)
        loaded.hf_device_map = {"model": 0, "lm_head": "disk"}
        return loaded

    monkeypatch.setattr(scoring, "placement_of", lambda *_: Placement("gpus", "cuda:0", "float32", 1, 2))
    monkeypatch.setattr(scoring, "from_folder", loading)
    with pytest.raises(MeasurementError, match="does not fit the memory of the GPUs that are free"):
        scoring.open_source(model, prompts)

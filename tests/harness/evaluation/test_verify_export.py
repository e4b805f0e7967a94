"""--verify passes what export writes and catches a checkpoint that is not what its plan says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.core.errors import MeasurementError
from harness.engine import memory_budget
from harness.engine.memory_budget import EngineSettings
from harness.evaluation import verify_export
from harness.evaluation.verify_export import verify
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.loader import load_pruned
from pruning.vocabulary import choose_tokens
from pruning.vocabulary_files import read_tokenizer
from tests.support.models import build_model
from tests.support.pruned import compensated

pytestmark = pytest.mark.slow
THREAD = EngineSettings(threads=1)


def test_an_export_is_verified_and_a_tampered_one_is_caught(tmp_path: Path) -> None:
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    checkpoint = export(open_model(dense), plan, tmp_path / "pruned", plan_file).path
    found = verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)
    assert found.logit_error < 1e-5 and found.tokens > 50 and found.differing == 0
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].roll(1, dims=0)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(MeasurementError, match="other logits than the masked model"):
        verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)


def test_16_bits_of_the_engine_pass_within_what_rounding_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on CUDA. BF16 changes logits by more than the tolerance for FP32, and other tokens are still caught."""
    monkeypatch.setattr(verify_export, "_dtype", lambda _: "bfloat16")
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    checkpoint = export(open_model(dense), plan, tmp_path / "pruned", plan_file).path
    found = verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)
    assert (found.dtype, found.differing) == ("bfloat16", 0) and found.logit_error < 1e-5
    prompts = verify_export._prompts(open_model(checkpoint))
    exact, rounded = (
        verify_export._logits(load_pruned(checkpoint, dtype), prompts) for dtype in (torch.float32, torch.bfloat16)
    )
    assert max(verify_export._error(a, b) for a, b in zip(exact, rounded, strict=True)) > verify_export._TOLERANCE
    monkeypatch.setattr(verify_export, "_vllm_tokens", lambda _, prompts, __: [[7] * 3 for _ in prompts])
    with pytest.raises(MeasurementError, match=r"\d+ of 12 tokens of .* differ between vLLM and transformers"):
        verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)


@pytest.mark.parametrize(
    ("device", "own", "dtype"),
    [("cpu", "bfloat16", "float32"), ("cuda", "bfloat16", "bfloat16"), ("cuda", "float16", "float16")],
)
def test_the_engine_computes_in_16_bits_on_a_gpu_alone(
    device: str, own: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a float32 checkpoint, in the type that the GPU has."""
    monkeypatch.setattr(verify_export, "device_name", lambda: device)
    monkeypatch.setattr(memory_budget, "device_name", lambda: device)
    monkeypatch.setattr(memory_budget, "half_dtype", lambda: own)
    assert verify_export._dtype(open_model(build_model("qwen2", tmp_path))) == dtype


def test_an_engine_that_gives_other_tokens_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The export is right, and one token of the engine's is not the one that transformers would choose."""
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    checkpoint = export(open_model(dense), plan, tmp_path / "pruned", plan_file).path
    monkeypatch.setattr(verify_export, "_vllm_tokens", lambda _, prompts, __: [greedy(checkpoint, p) for p in prompts])
    assert verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD).differing == 0
    monkeypatch.setattr(verify_export, "_vllm_tokens", lambda _, prompts, __: [[7] * 3 for _ in prompts])
    with pytest.raises(MeasurementError, match=r"\d+ of 12 tokens of .* differ between vLLM and transformers"):
        verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)


def greedy(checkpoint: Path, prompt: list[int]) -> list[int]:
    model = load_pruned(checkpoint, torch.float32)
    model.generation_config.eos_token_id = None
    return model.generate(torch.tensor([prompt]), max_new_tokens=3, do_sample=False)[0, len(prompt) :].tolist()


def test_tokens_that_are_not_the_likeliest_are_counted_but_for_near_ties() -> None:
    """Of four answers the first is the likeliest, the second and third are not, the fourth is within rounding."""
    logits = torch.zeros(1, 6, 5)
    for position, (likeliest, chosen, gap) in enumerate([(3, 3, 0.0), (4, 1, 5.0), (0, 2, 0.02), (2, 1, 0.009)], 1):
        logits[0, position, likeliest] = 10.0
        logits[0, position, chosen] = 10.0 - gap
    logits[0, 5, 0] = 10.0  # what comes after the answer is not asked
    model = lambda ids: SimpleNamespace(logits=logits[:, : ids.shape[1]])  # noqa: E731
    assert verify_export._differing(model, model, [0, 0], [3, 1, 2, 1]) == 2
    assert verify_export._differing(model, model, [0, 0], [3, 4, 0, 2]) == 0


def test_a_token_is_near_by_what_rounding_changes_at_its_position() -> None:
    """Gaps of 5, 0.02 and 3; rounding moves logits by 1 at the first two positions: 4 of these are allowed there."""
    logits = torch.zeros(1, 5, 5)
    logits[0, 1:4, 0] = 10.0
    logits[0, 1, 1], logits[0, 2, 1], logits[0, 3, 1] = 5.0, 9.98, 7.0
    moved = logits.clone()
    moved[0, 1:3, 4] += 1.0
    exact, rounded = (
        (lambda ids, values=values: SimpleNamespace(logits=values[:, : ids.shape[1]])) for values in (logits, moved)
    )
    assert verify_export._differing(exact, exact, [0, 0], [1, 1, 1]) == 3
    assert verify_export._differing(exact, rounded, [0, 0], [1, 1, 1]) == 2


def test_a_smaller_vocabulary_is_compared_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have the same prompts, each in its own numbers; two rows that changed places are caught."""
    dense, plan, plan_file = compensated("qwen2", tmp_path)
    monkeypatch.setattr(verify_export, "_vllm_tokens", lambda _, prompts, __: [greedy(checkpoint, p) for p in prompts])
    file = read_tokenizer(open_model(dense))
    late = {number: number for number in range(1088)}  # so that numbers change
    plan = replace(plan, vocabulary=choose_tokens(file, [late], 576, 1088, set()), vocab_size=1088)
    checkpoint = export(open_model(dense), plan, tmp_path / "small", plan_file).path
    found = verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)
    assert found.logit_error < 1e-5 and found.differing == 0
    tensors = load_file(checkpoint / "model.safetensors")
    name = "model.embed_tokens.weight"
    tensors[name] = tensors[name].roll(1, dims=0)
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(MeasurementError, match="other logits than the masked model"):
        verify(open_model(dense), plan, plan_file, open_model(checkpoint), THREAD)

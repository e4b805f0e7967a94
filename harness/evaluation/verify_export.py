"""Proof that an export is what the plan says: transformers and vLLM on it, against the dense model with the same
neurons masked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.memory import available_bytes
from harness.core.text import size_text
from harness.core.types.pruning import PruningPlan
from harness.engine.devices import device_name
from harness.engine.memory_budget import EngineSettings, working_dtype
from harness.engine.vllm_engine import engines_for, generate
from pruning.checkpoint import ModelFolder
from pruning.loader import load_pruned
from pruning.masked import load_masked
from pruning.tokenizer_match import load_plainly, tokenizer_difference

_TEXTS = (
    "Question: Tom has 3 bags with 12 apples each and gives 7 apples away. How many apples are left?\nAnswer:",
    "def add(a, b):\n    return",
    "The capital of France is",
    " ".join(f"{i} and {i + 1} make {2 * i + 1}." for i in range(40)),  # longer than a block of the engine's cache
)
_NEW_TOKENS, _TOLERANCE = 24, 1e-3  # of the largest logit
_ROUNDINGS = 4  # two logits are compared, and vLLM adds up in another order than transformers
_LONGEST = 512


@dataclass(frozen=True)
class Verification:
    """How an export compares with the masked dense model.

    Attributes:
        logit_error: Largest difference of the logits in transformers in FP32, as a fraction of the largest logit.
        tokens: Greedy tokens that vLLM generated.
        differing: Those of them that transformers would not have chosen, near-ties aside.
        dtype: The type in which vLLM computed: float32 on a CPU, 16 bits on CUDA.
    """

    logit_error: float
    tokens: int
    differing: int
    dtype: str = "float32"


def verify(
    model: ModelFolder,
    plan: PruningPlan,
    plan_file: Path,
    checkpoint: ModelFolder,
    settings: EngineSettings = EngineSettings(),
) -> Verification:
    """Compares an exported checkpoint with the masked dense model, in transformers and in vLLM.

    transformers computes in FP32. So does vLLM on a CPU; on CUDA its attention would round FP32 to TF32, so it computes
    in 16 bits there, and its tokens are held against what the same rounding changes in transformers.

    Args:
        model: The dense model.
        plan: What was removed.
        plan_file: The plan's file, beside which re-fitted columns lie.
        checkpoint: What `export` wrote.
        settings: How the engine is started; its dtype, context and sequences are the comparison's own.

    Raises:
        MeasurementError: Logits or tokens differ by more than rounding, the tokenizers read texts otherwise, or the
            weights do not fit the memory.
    """
    import torch

    _check_tokenizer(model, plan, checkpoint)
    _check_memory(model, checkpoint)
    prompts, dtype = _prompts(checkpoint), _dtype(checkpoint)
    expected = _expected(load_masked(model, plan, plan_file, torch.float32), prompts, plan)
    pruned = load_pruned(checkpoint, torch.float32)
    error = max(_error(a, b) for a, b in zip(expected, _logits(pruned, prompts), strict=True))
    if not error <= _TOLERANCE:
        raise MeasurementError(
            f"{checkpoint.path} gives other logits than the masked model (off by "
            f"{error:.2g} of the largest); export again"
        )
    answers = _vllm_tokens(checkpoint, prompts, replace(settings, dtype=dtype))
    rounded = pruned if dtype == "float32" else load_pruned(checkpoint, getattr(torch, dtype))
    pairs = zip(prompts, answers, strict=True)
    differing = sum(_differing(pruned, rounded, prompt, answer) for prompt, answer in pairs)
    result = Verification(error, sum(map(len, answers)), differing, dtype)
    if result.differing:
        raise MeasurementError(
            f"{differing} of {result.tokens} tokens of {checkpoint.path} differ between "
            "vLLM and transformers; do not serve it"
        )
    return result


def _check_tokenizer(model: ModelFolder, plan: PruningPlan, checkpoint: ModelFolder) -> None:
    dense, written = load_plainly(model.path), load_plainly(checkpoint.path)
    if dense is not None and (found := tokenizer_difference(dense, written, plan.vocabulary, _TEXTS)):
        raise MeasurementError(
            f"the tokenizer of {checkpoint.path} is not that of the dense model: {found}; export again"
        )


def _dtype(checkpoint: ModelFolder) -> str:
    return "float32" if device_name() == "cpu" else working_dtype(checkpoint, "auto")


def _check_memory(model: ModelFolder, checkpoint: ModelFolder) -> None:
    need, free = 4 * (model.parameters + checkpoint.parameters), available_bytes()
    if need > free:
        raise MeasurementError(
            f"verifying {checkpoint.path} holds both models in FP32, {size_text(need)}, and "
            f"{size_text(free)} are free; "
            "the checkpoint is written, verify it on a larger machine"
        )


def _prompts(checkpoint: ModelFolder) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.path)
    room = min(_LONGEST, checkpoint.shape.max_position_embeddings) - _NEW_TOKENS
    return [list(tokenizer(text)["input_ids"])[:room] for text in _TEXTS]


def _expected(masked: Any, prompts: list[list[int]], plan: PruningPlan) -> list[Any]:
    """Logits of the masked model by the numbers of the checkpoint's vocabulary, in which the prompts are."""
    import torch

    if plan.vocabulary is None:
        return _logits(masked, prompts)
    keep = torch.from_numpy(plan.vocabulary).long()
    return [logits[:, keep] for logits in _logits(masked, [keep[ids].tolist() for ids in prompts])]


def _logits(model: Any, prompts: list[list[int]]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0].float() for ids in prompts]


def _error(expected: Any, actual: Any) -> float:
    return float((expected - actual).abs().max() / expected.abs().max())


def _vllm_tokens(checkpoint: ModelFolder, prompts: list[list[int]], settings: EngineSettings) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt

    longest = min(_LONGEST, checkpoint.shape.max_position_embeddings)
    params = SamplingParams(temperature=0.0, max_tokens=_NEW_TOKENS, ignore_eos=True)
    short = replace(settings, max_model_len=longest, max_num_seqs=len(prompts))
    with engines_for({"the checkpoint": checkpoint}, short) as engines:
        asked = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
        outputs = generate(engines["the checkpoint"], asked, params)
    return [list(output.outputs[0].token_ids) for output in outputs]


def _differing(model: Any, rounded: Any, prompt: list[int], answer: list[int]) -> int:
    """Tokens of `answer` that are not, within rounding, the most likely after everything before them.

    rounded: the model in the type in which the answer was computed; how far its logits at a position are from the
    model's says what rounding does there.
    """
    import torch

    exact, near = (_logits(each, [prompt + answer])[0][len(prompt) - 1 : -1] for each in (model, rounded))
    chosen = exact.gather(1, torch.tensor(answer)[:, None])[:, 0]
    rounding = (exact - near).abs().max(dim=1).values
    allowed = _TOLERANCE * exact.abs().max() + _ROUNDINGS * rounding
    return int((exact.max(dim=1).values - chosen > allowed).sum())

"""Proof that an export is what the plan says: transformers and vLLM on it, against the dense model with the same
neurons masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.memory import available_bytes
from harness.core.text import size_text
from harness.core.types.pruning import PruningPlan
from harness.engine.memory_budget import EngineSettings, with_kv_cache
from harness.engine.vllm_engine import engine, generate
from pruning import compensation
from pruning.activations import down_weight
from pruning.checkpoint import ModelFolder
from pruning.families import submodule
from pruning.loader import load_pruned

_TEXTS = (
    "Question: Tom has 3 bags with 12 apples each and gives 7 apples away. How many apples are left?\nAnswer:",
    "def add(a, b):\n    return",
    "The capital of France is",
    " ".join(f"{i} and {i + 1} make {2 * i + 1}." for i in range(40)),  # longer than a block of the engine's cache
)
_NEW_TOKENS, _TOLERANCE = 24, 1e-3  # of the largest logit
_LONGEST = 512


@dataclass(frozen=True)
class Verification:
    """How an export compares with the masked dense model, in FP32.

    Attributes:
        logit_error: Largest difference of the logits, as a fraction of the largest logit.
        tokens: Greedy tokens that vLLM generated.
        differing: Those of them that transformers would not have chosen, near-ties aside.
    """

    logit_error: float
    tokens: int
    differing: int


def verify(
    model: ModelFolder, plan: PruningPlan, plan_file: Path, checkpoint: ModelFolder, threads: int | None
) -> Verification:
    """Compares an exported checkpoint with the masked dense model, in transformers and in vLLM.

    Args:
        model: The dense model.
        plan: What was removed.
        plan_file: The plan's file, beside which re-fitted columns lie.
        checkpoint: What `export` wrote.
        threads: CPU threads of the engine; None: all.

    Raises:
        MeasurementError: Logits or tokens differ by more than rounding, or FP32 weights do not fit the memory.
    """
    import torch

    _check_memory(model, checkpoint)
    prompts = _prompts(checkpoint)
    expected = _logits(_masked(model, plan, plan_file), prompts)
    pruned = load_pruned(checkpoint, torch.float32)
    error = max(_error(a, b) for a, b in zip(expected, _logits(pruned, prompts), strict=True))
    if not error <= _TOLERANCE:
        raise MeasurementError(
            f"{checkpoint.path} gives other logits than the masked model (off by "
            f"{error:.2g} of the largest); export again"
        )
    answers = _vllm_tokens(checkpoint, prompts, threads)
    differing = sum(_differing(pruned, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))
    result = Verification(error, sum(map(len, answers)), differing)
    if result.differing:
        raise MeasurementError(
            f"{differing} of {result.tokens} tokens of {checkpoint.path} differ between "
            "vLLM and transformers; do not serve it"
        )
    return result


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


def _masked(model: ModelFolder, plan: PruningPlan, plan_file: Path) -> Any:
    """The dense model in FP32 with the removed columns zero and the kept ones as the plan has them."""
    import torch

    loaded, family = load_pruned(model, torch.float32), model.family
    fitted = compensation.load_columns(plan, plan_file)
    for layer, module in enumerate(submodule(loaded, family.layers)):
        weight, keep = down_weight(module, family), torch.from_numpy(plan.keep[layer]).long()
        columns = fitted[layer].to(weight) if fitted else weight[:, keep].clone()
        weight.zero_()
        weight[:, keep] = columns
    return loaded


def _logits(model: Any, prompts: list[list[int]]) -> list[Any]:
    import torch

    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0] for ids in prompts]


def _error(expected: Any, actual: Any) -> float:
    return float((expected - actual).abs().max() / expected.abs().max())


def _vllm_tokens(checkpoint: ModelFolder, prompts: list[list[int]], threads: int | None) -> list[list[int]]:
    from vllm import SamplingParams, TokensPrompt

    longest = min(_LONGEST, checkpoint.shape.max_position_embeddings)
    settings = EngineSettings(dtype="float32", max_model_len=longest, max_num_seqs=len(prompts), threads=threads)
    params = SamplingParams(temperature=0.0, max_tokens=_NEW_TOKENS, ignore_eos=True)
    with engine(checkpoint, with_kv_cache(checkpoint, settings)) as llm:
        outputs = generate(llm, [TokensPrompt(prompt_token_ids=ids) for ids in prompts], params)
    return [list(output.outputs[0].token_ids) for output in outputs]


def _differing(model: Any, prompt: list[int], answer: list[int]) -> int:
    """Tokens of `answer` that are not, within rounding, the most likely after everything before them."""
    import torch

    logits = _logits(model, [prompt + answer])[0][len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
    return int((logits.max(dim=1).values - chosen > _TOLERANCE * logits.abs().max()).sum())

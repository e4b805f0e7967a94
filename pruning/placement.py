"""Where a model's weights are while it is scored: whole in memory, over several GPUs, or one layer at a time.

Pure arithmetic on sizes and free memory, so that a dry run says what the run does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.core.errors import MeasurementError
from harness.core.memory import FreeMemory
from harness.core.text import size_text
from harness.core.types.pruning import ModelShape
from pruning.calibration import MAX_BATCH_TOKENS

SAMPLE = 256  # prompts per group whose means are kept one by one, for metrics that need ranks
_SHARE = {"cpu": 0.8, "cuda": 0.9}  # of the free memory; the rest is for the allocator and for other work
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_OPTIMISED_BYTES = (
    26  # of a number: itself, its gradient and Adam's moments in FP32, the best and three copies in 16 bits
)


@dataclass(frozen=True)
class ScoringNeeds:
    """What a scoring keeps in memory besides weights.

    Attributes:
        samples: Prompts of the target task; there are twice as many distractors.
        second_moments: Whether H [F, F] of a layer is summed.
        gradients: Whether a metric needs them, and so the whole model at once.
        reconstruction: Whether a layer's FFN is optimised.
        refit: Whether columns are re-fitted in FP64 beside the weights.
    """

    samples: int
    second_moments: bool = False
    gradients: bool = False
    reconstruction: bool = False
    refit: bool = False


@dataclass(frozen=True)
class Placement:
    """Where the weights are.

    Attributes:
        source: "whole", "gpus" (over several) or "layers" (read from the shards when their turn comes).
        device: "cpu", or the GPU with the most free memory.
        dtype: torch's name of the number type in which the layers compute.
        weight_bytes: Weights in memory at a time.
        gpus: How many GPUs hold them; 0 on a CPU.
    """

    source: Literal["whole", "gpus", "layers"]
    device: str
    dtype: str
    weight_bytes: int
    gpus: int = 0

    @property
    def text(self) -> str:
        """For a dry run and for the progress."""
        size = f"{size_text(self.weight_bytes)} in {self.dtype}"
        if self.source == "layers":
            return f"layer by layer from the shards: {size} at a time"
        return f"over {self.gpus} GPUs: {size}" if self.source == "gpus" else f"whole model in memory: {size}"


def choose(shape: ModelShape, needs: ScoringNeeds, free: FreeMemory) -> Placement:
    """The fastest placement that fits.

    Raises MeasurementError where nothing fits, or a metric needs gradients and the whole model does not fit.
    """
    found = _on_gpus(shape, needs, free) if free.gpus else _on_cpu(shape, needs, free)
    if found is None:
        memory = f"{size_text(max(free.gpus))} of the GPU" if free.gpus else f"{size_text(free.main)} of main memory"
        least = _layer_bytes(shape, "bfloat16") + _working_bytes(shape, needs)
        raise MeasurementError(
            f"one layer needs about {size_text(least)} and {memory} are free; free some memory, or use a larger machine"
        )
    if needs.gradients and found.source == "layers":
        whole = shape.parameters * _BYTES[found.dtype if free.gpus else "bfloat16"]
        raise MeasurementError(
            f"the metric taylor needs gradients of the whole model, {size_text(whole)} of weights, which does not fit "
            "the free memory; choose another --metric, or free some memory"
        )
    return found


def gpu_dtype(stored: str, bfloat16: bool) -> str:
    """FP16 for an FP16 checkpoint, which loses three bits in BF16; else BF16 where the GPU has it, else FP32."""
    if stored == "float16":
        return "float16"
    return "bfloat16" if bfloat16 else "float32"


def _on_gpus(shape: ModelShape, needs: ScoringNeeds, free: FreeMemory) -> Placement | None:
    dtype, usable = gpu_dtype(shape.dtype, free.bfloat16), [_SHARE["cuda"] * size for size in free.gpus]
    whole, layer, working = shape.parameters * _BYTES[dtype], _layer_bytes(shape, dtype), _working_bytes(shape, needs)
    statistics, roomiest = _statistics_bytes(shape, needs), f"cuda:{usable.index(max(usable))}"
    if whole + working + statistics <= max(usable):
        return Placement("whole", roomiest, dtype, whole, 1)
    # a layer is never divided, so that a part of one is left empty on each GPU
    if whole + statistics <= sum(max(0.0, size - working - layer) for size in usable):
        return Placement("gpus", roomiest, dtype, whole, len(usable))
    return Placement("layers", roomiest, dtype, layer, 1) if layer + working <= max(usable) else None


def _on_cpu(shape: ModelShape, needs: ScoringNeeds, free: FreeMemory) -> Placement | None:
    """FP32 wherever a layer fits, as reading the layers one by one takes no longer than reading them all."""
    usable = _SHARE["cpu"] * free.main - _statistics_bytes(shape, needs) - _working_bytes(shape, needs)
    for dtype in ("float32", "bfloat16"):
        if shape.parameters * _BYTES[dtype] <= usable and (dtype == "float32" or needs.gradients):
            return Placement("whole", "cpu", dtype, shape.parameters * _BYTES[dtype])
    for dtype in ("float32", "bfloat16"):
        if _layer_bytes(shape, dtype) <= usable:
            return Placement("layers", "cpu", dtype, _layer_bytes(shape, dtype))
    return None


def _layer_bytes(shape: ModelShape, dtype: str) -> int:
    embeddings = shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
    return _BYTES[dtype] * max(1, shape.parameters - embeddings) // shape.num_hidden_layers


def _working_bytes(shape: ModelShape, needs: ScoringNeeds) -> int:
    """Of one batch in one layer, an upper estimate: gate, up, their product, a copy and a buffer in FP32; H; what Adam
    needs for the FFN; and for a re-fit H and its part in FP32, the part and its factor in FP64.
    """
    batch = 4 * MAX_BATCH_TOKENS * (5 * shape.intermediate_size + 8 * shape.hidden_size)
    optimised = _OPTIMISED_BYTES * shape.neuron_parameters * shape.intermediate_size if needs.reconstruction else 0
    return batch + optimised + (4 * needs.second_moments + 24 * needs.refit) * shape.intermediate_size**2


def _statistics_bytes(shape: ModelShape, needs: ScoringNeeds) -> int:
    """Sums in FP64 and the prompts' own means in FP32, of all layers."""
    prompts = min(SAMPLE, needs.samples) + min(SAMPLE, 2 * needs.samples)
    return shape.num_hidden_layers * shape.intermediate_size * (2 * 7 * 8 + 4 * prompts)

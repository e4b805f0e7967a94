"""What a training will take, estimated before it starts: tokens, memory, disk and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.types.pruning import ModelShape
from recovery.recipe import Recipe, load_dtype

_ADAM = 8  # bytes per trained parameter: two FP32 moments
_FP32 = 4
_PADDED = 1.5  # a batch is padded to its longest row
_STATES = 3  # the last two, and one that is being written
_LOGITS = 3  # in FP32: themselves, their logarithms and their gradient
# bytes per layer, token and hidden unit at two bytes a number (Korthikanti et al. 2022, arXiv 2205.05198, eq. 2)
_ACTIVATIONS = 34


@dataclass(frozen=True)
class Cost:
    """An estimate over all processes; `memory_bytes` is the sum of all bytes except the disk's."""

    tokens: int
    steps: int
    trained_parameters: int
    weights_bytes: int
    gradient_bytes: int
    optimiser_bytes: int
    activation_bytes: int
    disk_bytes: int
    flops: float

    @property
    def memory_bytes(self) -> int:
        return self.weights_bytes + self.gradient_bytes + self.optimiser_bytes + self.activation_bytes


def lora_parameters(shape: ModelShape, rank: int) -> int:
    """rank * (inputs + outputs) of every projection that a layer has; queries are as wide as the model."""
    h, kv = shape.hidden_size, shape.num_key_value_heads * shape.head_dim
    matrices = shape.neuron_parameters // h  # of the FFN: three with a gate
    attention = 2 * (h + h) + 2 * (h + kv)
    ffn = matrices * (h + shape.intermediate_size)
    return rank * (shape.attention_layers * attention + shape.num_hidden_layers * ffn)


def cost(shape: ModelShape, recipe: Recipe, row_tokens: float, teacher_parameters: int | None = None) -> Cost:
    """Estimates a training.

    Adapters are trained with a full copy per process; full weights, gradients and moments are sharded over processes.

    Args:
        row_tokens: Tokens of an average row, unpacked.
        teacher_parameters: Of the model to distil from; None where it is as large as the one that is trained.

    Returns:
        The estimate; a teacher's weights count among the weights.
    """
    row_tokens = recipe.max_length if recipe.packing else row_tokens
    tokens = round(recipe.steps * recipe.batch * row_tokens)
    copies = recipe.processes if recipe.tuning == "lora" else 1
    teacher = (teacher_parameters or shape.parameters) if recipe.distill else 0
    trained = shape.parameters if recipe.tuning == "full" else lora_parameters(shape, recipe.lora_rank)
    width = _FP32 if load_dtype(recipe) == "float32" else 2
    adapter = trained * _FP32 if recipe.tuning == "lora" else 0
    disk = _STATES * trained * (_FP32 + _ADAM) + recipe.curve * trained * _FP32
    return Cost(
        tokens=tokens,
        steps=recipe.steps,
        trained_parameters=trained,
        weights_bytes=copies * (shape.parameters * width + adapter) + recipe.processes * teacher * width,
        gradient_bytes=copies * trained * _FP32,
        optimiser_bytes=copies * trained * _ADAM,
        activation_bytes=_activations(shape, recipe, row_tokens),
        disk_bytes=disk,
        flops=_flops(shape, recipe, tokens) + 2.0 * teacher * tokens,
    )


def _activations(shape: ModelShape, recipe: Recipe, row_tokens: float) -> int:
    """Bytes of activations. Checkpointing keeps each layer's input and one layer's activations; half of the tokens have
    logits.
    """
    at_once = recipe.micro_batch * recipe.processes * row_tokens * (1.0 if recipe.packing else _PADDED)
    width = 4 if recipe.precision == "float32" else 2
    layer = at_once * (shape.hidden_size * _ACTIVATIONS * width / 2 + _adapter_inputs(shape, recipe))
    inputs = at_once * shape.hidden_size * width * shape.num_hidden_layers
    kept = inputs + layer if recipe.gradient_checkpointing else layer * shape.num_hidden_layers
    logits = at_once / 2 * shape.vocab_size * _FP32 * _LOGITS
    return round(kept + logits)


def _adapter_inputs(shape: ModelShape, recipe: Recipe) -> int:
    """Bytes per token and layer: every adapter keeps its input in FP32, and a second copy with its mask under
    dropout.
    """
    inputs = 6 * shape.hidden_size + shape.intermediate_size
    return inputs * (_FP32 + (_FP32 + 1) * bool(recipe.lora_dropout)) if recipe.tuning == "lora" else 0


def _flops(shape: ModelShape, recipe: Recipe, tokens: int) -> float:
    """2 FLOPs per parameter and token forward, 2 back to activations, 2 to trained weights; recomputing adds 2."""
    each = 6 if recipe.tuning == "full" else 4
    return float(shape.parameters) * tokens * (each + 2 * recipe.gradient_checkpointing)

"""How a checkpoint is trained: every setting that decides the result, resolved before training starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.core.errors import UsageError
from harness.core.hashing import digest

Tuning = Literal["lora", "full"]
SMALL, _TINY = 1_000_000_000, 10_000_000  # parameters
_LEARNING_RATES = {"lora": 2e-4, "tiny": 5e-4, "small": 2e-4, "large": 1e-5}
_SAVES_PER_PART = 3
# arXiv 2604.27115: LoRA r 16, alpha 32 on every projection; by the kind of the task
PAPER: Mapping[str, Mapping[str, Any]] = {
    "math": {
        "tuning": "lora",
        "learning_rate": 2e-5,
        "epochs": 3.0,
        "batch": 8,
        "micro_batch": 2,
        "lora_dropout": 0.10,
    },
    "code": {
        "tuning": "lora",
        "learning_rate": 2e-4,
        "epochs": 2.0,
        "batch": 16,
        "micro_batch": 2,
        "lora_dropout": 0.05,
    },
}
PAPER_SCHEDULE: Mapping[str, float] = {"warmup": 0.03, "least_rate": 0.0, "weight_decay": 0.01}


@dataclass(frozen=True)
class Recipe:
    """All settings of a training.

    Attributes:
        batch: Examples per optimiser step over all processes.
        micro_batch: Examples per forward pass on one device.
        distill: Weight in [0, 1] of the Kullback-Leibler term to the dense model's next-token distribution.
        precision: dtype of the activations; trained weights are always FP32.
        curve: Evaluations during training.
        max_grad_norm: Gradients are clipped to this norm.
        warmup: Share of the steps in which the learning rate rises.
        least_rate: Share of the learning rate at the end, to which it falls as a cosine.
    """

    tuning: Tuning
    learning_rate: float
    steps: int
    batch: int
    micro_batch: int
    max_length: int
    lora_rank: int
    lora_alpha: int
    lora_dropout: float
    distill: float
    packing: bool
    gradient_checkpointing: bool
    precision: Literal["float32", "bfloat16", "float16"]
    curve: int
    seed: int
    processes: int = 1
    report_to: str | None = None
    max_grad_norm: float = 1.0
    warmup: float = 0.05
    least_rate: float = 0.05
    weight_decay: float = 0.0

    @property
    def hash(self) -> str:
        return digest(asdict(self))

    @property
    def accumulation(self) -> int:
        return self.batch // (self.micro_batch * self.processes)

    @property
    def save_every(self) -> int:
        """Steps between two states on disk: a few per part of the curve."""
        return max(1, math.ceil(self.steps / (_SAVES_PER_PART * (self.curve + 1))))

    @property
    def curve_steps(self) -> tuple[int, ...]:
        """The steps after which accuracy is measured, in addition to before the first and after the last."""
        points = (self.save_every * _SAVES_PER_PART * (i + 1) for i in range(self.curve))
        return tuple(step for step in points if step < self.steps)


def default_tuning(parameters: int) -> Tuning:
    """All weights up to a billion parameters, else LoRA as in the paper."""
    return "full" if parameters <= SMALL else "lora"


def default_learning_rate(tuning: Tuning, parameters: int) -> float:
    if tuning == "lora":
        return _LEARNING_RATES["lora"]
    return _LEARNING_RATES["tiny" if parameters <= _TINY else "small" if parameters <= SMALL else "large"]


def default_micro_batch(batch: int, processes: int, parameters: int) -> int:
    """The whole batch for a small model; two, as in the paper, for a large one."""
    share = max(1, batch // processes)
    return share if parameters <= SMALL else math.gcd(share, 2)


def default_processes(batch: int, micro_batch: int | None, gpus: int) -> int:
    """As many of the GPUs as can share a batch evenly; one without a GPU."""
    return next(
        count for count in range(max(1, gpus), 0, -1) if count == 1 or batch % (count * (micro_batch or 1)) == 0
    )


def steps_of(epochs: float, examples: int, batch: int) -> int:
    return max(1, math.ceil(epochs * examples / batch))


def check(recipe: Recipe) -> Recipe:
    """Raises UsageError for settings that contradict each other."""
    if recipe.accumulation * recipe.micro_batch * recipe.processes != recipe.batch:
        raise UsageError(
            f"--batch {recipe.batch} is not a multiple of {recipe.processes} processes times "
            f"--micro-batch {recipe.micro_batch}; change one"
        )
    if recipe.distill and recipe.packing:
        raise UsageError("--distill compares with the dense model sequence by sequence; leave out --packing")
    return recipe


def sft_settings(recipe: Recipe, folder: Path) -> dict[str, Any]:
    """The recipe as arguments of TRL's SFTConfig."""
    return {
        "output_dir": str(folder),
        "learning_rate": recipe.learning_rate,
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.micro_batch,
        "gradient_accumulation_steps": recipe.accumulation,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": recipe.least_rate},
        "warmup_steps": math.ceil(recipe.warmup * recipe.steps),
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "max_length": recipe.max_length,
        "packing": recipe.packing,
        "gradient_checkpointing": recipe.gradient_checkpointing,
        "bf16": recipe.precision == "bfloat16",
        "fp16": recipe.precision == "float16",
        "seed": recipe.seed,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": recipe.save_every,
        "report_to": recipe.report_to or "none",
    }


def lora_settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe as arguments of peft's LoraConfig: every linear layer except the head, the paper's seven for Llama."""
    return {
        "r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "target_modules": "all-linear",
    }


def trl_command(recipe: Recipe, model: Path, data: Path, folder: Path) -> dict[str, Any]:
    """The settings with which `trl sft --config` trains the same way, except distillation and non-uniform widths."""
    lora = {
        "use_peft": True,
        "lora_r": recipe.lora_rank,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "lora_target_modules": "all-linear",
    }
    source = {"model_name_or_path": str(model), "dtype": load_dtype(recipe), "dataset_name": str(data)}
    return {**source, **sft_settings(recipe, folder), **(lora if recipe.tuning == "lora" else {})}


def load_dtype(recipe: Recipe) -> str:
    """dtype of the loaded weights: frozen ones can have 16 bits, trained ones are FP32."""
    return recipe.precision if recipe.tuning == "lora" else "float32"

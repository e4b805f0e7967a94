"""RecoveryConfig: the settings of fine-tuning, the section `recovery` of a run's settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.config.values import parse_pairs


class RecoveryConfig(BaseModel):
    """How a checkpoint is fine-tuned."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    data: str = Field(
        default="task",
        description="Training data: task (its training split), generated (the dense model's own correct answers), "
        "a .jsonl file, or a Hub dataset.",
    )
    mixture: Mapping[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default={},
        description="Train on several tasks, instead of --data: the weight of each by name, as a share of the "
        "examples. text is general text, for example mini_math=5,mini_code=3,text=2.",
    )
    tuning: Literal["lora", "full"] | None = Field(
        default=None, description="Weights to train. Default: full up to a billion parameters, else lora."
    )
    steps: int | None = Field(default=None, ge=1, description="Optimiser steps. Default: 300.")
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the training examples, instead of --steps."
    )
    samples: int | None = Field(
        default=None, ge=1, description="Training examples. Default: as many as the steps need."
    )
    batch: int | None = Field(
        default=None, ge=1, description="Examples per optimiser step, over all devices. Default: 16."
    )
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Examples per forward pass on one device. Default: all of them, 2 above a billion parameters.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate. Default: 2e-4 for LoRA; for full tuning 5e-4 to 1e-5, by size.",
    )
    max_length: int = Field(default=1024, ge=8, description="Longest training example, in tokens.")
    lora_rank: int = Field(default=16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(default=32, ge=1, description="LoRA scaling; updates are multiplied by alpha / rank.")
    lora_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout in the LoRA layers, a probability. Default: 0.05."
    )
    distill: float = Field(
        default=0.0, ge=0, le=1, description="Weight in the loss of the KL divergence from the dense model, in [0, 1]."
    )
    packing: bool = Field(default=False, description="Pack several examples into one row of --max-length tokens.")
    gradient_checkpointing: bool | None = Field(
        default=None, description="Recompute activations to save memory. Default: above a billion parameters."
    )
    curve: int = Field(default=3, ge=0, description="Evaluations of the target task during the training.")
    processes: int | None = Field(
        default=None, ge=1, description="Training processes, launched by accelerate. Default: one per GPU."
    )
    accelerate_config: Path | None = Field(
        default=None, description="Accelerate's YAML file. Default: FSDP2, or DDP for LoRA, on several GPUs."
    )
    report_to: Literal["trackio", "wandb", "mlflow", "tensorboard"] | None = Field(
        default=None, description="Tracker that records the training. Default: none."
    )

    _name_and_weight = field_validator("mixture", mode="before")(parse_pairs)

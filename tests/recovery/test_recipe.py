"""Recipes: what is derived from what, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from recovery import recipe as recipes
from recovery.recipe import (
    check,
    default_learning_rate,
    default_micro_batch,
    default_tuning,
    load_dtype,
    lora_settings,
    sft_settings,
    steps_of,
)
from tests.support.training import RECIPE


@given(st.integers(1, 5000), st.integers(0, 6))
def test_the_curve_has_its_points_on_saved_states_before_the_end(steps: int, curve: int) -> None:
    recipe = replace(RECIPE, steps=steps, curve=curve)
    assert all(0 < step < steps and step % recipe.save_every == 0 for step in recipe.curve_steps)
    assert len(set(recipe.curve_steps)) == len(recipe.curve_steps) <= curve
    if steps >= 20 * (curve + 1):
        assert len(recipe.curve_steps) == curve


@given(st.floats(0.1, 5), st.integers(1, 10_000), st.integers(1, 64))
def test_epochs_become_the_steps_that_see_every_example_so_often(epochs: float, examples: int, batch: int) -> None:
    steps = steps_of(epochs, examples, batch)
    assert steps * batch >= epochs * examples - 1e-6
    assert steps == 1 or (steps - 1) * batch < epochs * examples


@given(st.sampled_from([8, 16, 32]), st.sampled_from([1, 2, 4]), st.sampled_from([10**6, 7 * 10**9]))
def test_default_micro_batches_always_fit_the_batch(batch: int, processes: int, parameters: int) -> None:
    micro = default_micro_batch(batch, processes, parameters)
    assert (
        check(replace(RECIPE, batch=batch, processes=processes, micro_batch=micro)).accumulation * micro * processes
        == batch
    )


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    with pytest.raises(UsageError, match="--batch 6 is not a multiple of 2 processes times --micro-batch 2"):
        check(replace(RECIPE, batch=6, processes=2, micro_batch=2))
    with pytest.raises(UsageError, match="--packing"):
        check(replace(RECIPE, distill=0.5, packing=True))


def test_the_papers_settings_stand_in_the_preset() -> None:
    math, code = recipes.PAPER["math"], recipes.PAPER["code"]
    assert (math["learning_rate"], math["epochs"], math["batch"], math["micro_batch"], math["lora_dropout"]) == (
        2e-5,
        3,
        8,
        2,
        0.10,
    )
    assert (code["learning_rate"], code["epochs"], code["batch"], code["micro_batch"], code["lora_dropout"]) == (
        2e-4,
        2,
        16,
        2,
        0.05,
    )


def test_small_models_are_trained_whole_and_large_ones_by_adapters() -> None:
    assert (default_tuning(135_000_000), default_tuning(7_600_000_000)) == ("full", "lora")
    rates = [default_learning_rate("full", parameters) for parameters in (10**6, 10**8, 10**10)]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
def test_trl_takes_every_setting(tmp_path: Path) -> None:
    from trl import SFTConfig

    settings = SFTConfig(
        **sft_settings(replace(RECIPE, packing=True, gradient_checkpointing=True), tmp_path), use_cpu=True
    )
    assert (
        settings.max_steps == RECIPE.steps
        and settings.per_device_train_batch_size == 4
        and settings.gradient_accumulation_steps == 1
    )
    assert (settings.warmup_steps, settings.weight_decay, settings.lr_scheduler_kwargs["min_lr_rate"]) == (1, 0.0, 0.05)
    paper = sft_settings(replace(RECIPE, steps=100, **recipes.PAPER_SCHEDULE), tmp_path)
    assert (paper["warmup_steps"], paper["weight_decay"], paper["lr_scheduler_kwargs"]["min_lr_rate"]) == (3, 0.01, 0)
    assert settings.packing and settings.gradient_checkpointing and not settings.bf16 and settings.report_to == []


def test_adapters_sit_on_the_papers_seven_projections(random_model: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(random_model), LoraConfig(**lora_settings(RECIPE), task_type="CAUSAL_LM")
    )
    found = {name.split(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if ".lora_A" in name}
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.mark.parametrize(("precision", "flags"), [("float32", ()), ("bfloat16", ("bf16",)), ("float16", ("fp16",))])
def test_precision_is_that_of_the_activations_and_of_frozen_weights(
    precision: Any, flags: tuple[str, ...], tmp_path: Path
) -> None:
    settings = sft_settings(replace(RECIPE, precision=precision), tmp_path)
    assert tuple(name for name in ("bf16", "fp16") if settings[name]) == flags
    assert load_dtype(replace(RECIPE, precision=precision, tuning="lora")) == precision
    assert load_dtype(replace(RECIPE, precision=precision, tuning="full")) == "float32"

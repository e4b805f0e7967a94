"""The forecast against what a training really holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning.checkpoint import open_model
from recovery.cost import cost, lora_parameters
from recovery.recipe import lora_settings
from tests.support.models import TINY_MATH
from tests.support.training import RECIPE

SHAPE = replace(open_model(TINY_MATH).shape, parameters=open_model(TINY_MATH).parameters)


@pytest.mark.slow
def test_adapter_parameters_are_pefts(rank: int = 6) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY_MATH)
    adapted = get_peft_model(model, LoraConfig(**lora_settings(replace(RECIPE, lora_rank=rank)), task_type="CAUSAL_LM"))
    assert lora_parameters(SHAPE, rank) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.slow
def test_optimiser_and_gradient_bytes_are_adamws() -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(TINY_MATH, dtype=torch.float32)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimiser.step()
    held = sum(value.nbytes for state in optimiser.state.values() for value in state.values() if value.ndim)
    expected = cost(SHAPE, RECIPE, 50)
    assert expected.optimiser_bytes == held
    assert expected.gradient_bytes == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert expected.weights_bytes == sum(p.nbytes for p in model.parameters())
    assert expected.trained_parameters == SHAPE.parameters


@given(st.integers(1, 500), st.sampled_from([1, 4, 16]), st.floats(10, 400))
def test_tokens_and_operations_grow_with_steps_batch_and_length(steps: int, batch: int, length: float) -> None:
    recipe = replace(RECIPE, steps=steps, batch=batch, micro_batch=batch)
    found = cost(SHAPE, recipe, length)
    assert found.tokens == round(steps * batch * length)
    assert found.flops == 6.0 * SHAPE.parameters * found.tokens
    adapted = cost(SHAPE, replace(recipe, tuning="lora"), length)
    assert adapted.flops < found.flops and adapted.optimiser_bytes < found.optimiser_bytes


def test_a_teacher_costs_its_weights_and_checkpointing_saves_activations() -> None:
    plain = cost(SHAPE, RECIPE, 50)
    assert cost(SHAPE, replace(RECIPE, distill=0.5), 50).weights_bytes == 2 * plain.weights_bytes
    large = cost(SHAPE, replace(RECIPE, distill=0.5), 50, 3 * SHAPE.parameters)
    assert large.weights_bytes == 4 * plain.weights_bytes and large.flops == 2 * plain.flops  # 6 + 3 * 2 of 6
    checkpointed = cost(SHAPE, replace(RECIPE, gradient_checkpointing=True), 50)
    assert checkpointed.activation_bytes < plain.activation_bytes and checkpointed.flops > plain.flops


def test_a_large_model_by_adapters_fits_where_whole_training_does_not() -> None:
    seven = replace(
        SHAPE,
        hidden_size=3584,
        num_hidden_layers=28,
        intermediate_size=18944,
        parameters=7_615_616_512,
        neuron_parameters=3 * 3584,
    )
    full, adapted = cost(seven, RECIPE, 200), cost(seven, replace(RECIPE, tuning="lora", precision="bfloat16"), 200)
    assert full.memory_bytes > 16 * 7.6e9 > 80e9 > adapted.memory_bytes > 2 * 7.6e9
    checkpointed = cost(seven, replace(RECIPE, tuning="lora", precision="bfloat16", gradient_checkpointing=True), 200)
    assert checkpointed.memory_bytes < 20e9

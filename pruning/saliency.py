"""First-order saliency by autograd: how much the loss would change if a neuron were removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.core.types.arrays import FloatArray
from harness.core.types.calibration import CalibrationSet
from pruning.activations import observe, pad
from pruning.calibration import batches
from pruning.families import Family, submodule


def taylor(
    model: Any, family: Family, calibration: CalibrationSet, progress: Callable[[int], None] = lambda _: None
) -> FloatArray:
    """Mean over target prompts of |sum over tokens of h_j dL/dh_j|, float64 [layers, intermediate_size].

    The sum is that of gradient times weight over down_proj's column j (LLM-Pruner, arXiv 2305.11627); L is the prompt's
    summed next-token loss on its scored tokens. No weight gets a gradient, so memory is that of one batch's
    activations.
    """
    import torch

    layers = len(submodule(model, family.layers))
    sums: list[Any] = [0.0] * layers
    model.requires_grad_(False)
    for batch in batches([item for item in calibration.items if item.target], max_tokens=1024):
        ids, attention, mask = pad(batch, model.device)
        held: dict[int, Any] = {}

        def keep(layer: int, h: Any, held: dict[int, Any] = held) -> None:
            h.retain_grad()
            held[layer] = h

        with observe(model, family, keep), torch.enable_grad():
            embedded = model.get_input_embeddings()(ids).detach().requires_grad_(True)
            logits = model(inputs_embeds=embedded, attention_mask=attention, use_cache=False).logits
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none"
            )
            (losses * mask[:, 1:]).sum().backward()
        for layer, h in held.items():
            product = (h.detach().float() * h.grad.float()).reshape(*ids.shape, -1).sum(dim=1)
            sums[layer] = sums[layer] + product.abs().sum(dim=0).double()
        progress(len(batch))
    found: FloatArray = torch.stack([values.to(sums[0].device) for values in sums]).cpu().numpy()
    return found / max(calibration.count(True), 1)

"""Writes scores.json: `python tests/golden/make_scores.py`, after the embedded model has changed.

A second, naive definition: one prompt at a time, no padding, gate_proj and up_proj run again on the FFN's input as the
paper's scripts do, all per-prompt means kept, numpy at the end.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from harness.pipeline import scoring
from pruning.checkpoint import open_model
from tasks.registry import find_task
from tests.support.models import TINY_MATH

SAMPLES, NEURONS, LAYERS = 12, [0, 1, 5, 77, 200, 311], (0, 3)


def main() -> None:
    calibration = scoring.calibrate(
        open_model(TINY_MATH), "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(SAMPLES, "all")
    )
    model = AutoModelForCausalLM.from_pretrained(TINY_MATH, dtype=torch.float32).eval()
    found = {"smd": {}, "rms": {}}
    for layer in LAYERS:
        mlp, inputs = model.model.layers[layer].mlp, []
        hook = mlp.register_forward_pre_hook(lambda _, args, seen=inputs: seen.append(args[0][0]))
        with torch.no_grad():
            for item in calibration.items:
                model(torch.tensor([item.token_ids]))
            hidden = [torch.nn.functional.silu(mlp.gate_proj(x)) * mlp.up_proj(x) for x in inputs]
        hook.remove()
        target = np.array([item.target for item in calibration.items])
        means = np.stack([h.abs().mean(0).double().numpy() for h in hidden])
        smd = (means[target].mean(0) - means[~target].mean(0)) / (means.std(0) + 1e-6)
        tokens = torch.cat([h for h, item in zip(hidden, calibration.items, strict=True) if item.target]).double()
        rms = tokens.pow(2).mean(0).sqrt() * mlp.down_proj.weight.double().norm(dim=0)
        found["smd"][str(layer)] = smd[NEURONS].tolist()
        found["rms"][str(layer)] = rms[NEURONS].tolist()
    document = {"samples": SAMPLES, "neurons": NEURONS, "scores": found}
    (Path(__file__).parent / "scores.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Checkpoints with non-uniform widths in transformers, whose `from_pretrained` knows only one width."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruning.checkpoint import read_config, shards
from pruning.families import Family, family_of, submodule, widths_of


def load_pruned(folder: Path | str, dtype: Any = None) -> Any:
    """The causal model of any checkpoint that `export` writes, uniform or not, on the CPU and ready to run.

    dtype: a torch dtype, the checkpoint's own where None. Raises what `read_config` and `shards` raise.
    """
    from transformers import AutoModelForCausalLM

    folder = Path(folder)
    config = read_config(folder)
    ragged = len(set(widths_of(config))) > 1
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", ignore_mismatched_sizes=ragged, **attention(config)
    )
    if ragged:
        _load_ffn(model, folder, family_of(config))
    return model.eval()


def attention(config: Mapping[str, Any]) -> dict[str, str]:
    """For `from_pretrained`: transformers' fast attention leaves out the cap on attention logits that Gemma 2 has, and
    vLLM applies it.
    """
    return {"attn_implementation": "eager"} if config.get("attn_logit_softcapping") else {}


def _load_ffn(model: Any, folder: Path, family: Family) -> None:
    """Puts the FFN's own tensors, which fit no single width, in place of those that transformers made."""
    import torch
    from safetensors import safe_open

    layers = submodule(model, family.layers)
    for shard in shards(folder):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                if found := family.tensor(name):
                    cut, layer = found
                    path, _, attribute = cut.name.rpartition(".")
                    module, tensor = submodule(layers[layer], path), file.get_tensor(name).to(model.dtype)
                    setattr(module, attribute, torch.nn.Parameter(tensor))
                    _tell_size(module, tensor)


def _tell_size(module: Any, tensor: Any) -> None:
    """What a linear layer says of itself, which adapters are made by; a GPT-2 layer holds its weight the other way
    round.
    """
    if tensor.ndim == 2 and hasattr(module, "out_features"):
        module.out_features, module.in_features = tensor.shape
    elif tensor.ndim == 2 and hasattr(module, "nf"):
        module.nx, module.nf = tensor.shape

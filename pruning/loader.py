"""Checkpoints with a width of its own in every layer, in transformers: stock `from_pretrained` knows one width only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.checkpoint import read_config, shards
from pruning.families import Family, family_of, submodule, widths_of


def load_pruned(folder: Path, dtype: Any = None) -> Any:
    """The causal model of any checkpoint that `export` writes, uniform or not, on the CPU and ready to run.

    dtype: a torch dtype, the checkpoint's own where None. Raises what `read_config` and `shards` raise.
    """
    from transformers import AutoModelForCausalLM

    config = read_config(folder)
    widths = widths_of(config)
    if len(set(widths)) == 1:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype or "auto").eval()
    return _load_ragged(folder, family_of(config), widths, dtype)


def _load_ragged(folder: Path, family: Family, widths: tuple[int, ...], dtype: Any) -> Any:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_config(settings, dtype=dtype or settings.dtype)  # type: ignore[no-untyped-call]
    for layer, width in zip(submodule(model, family.layers), widths, strict=True):
        for cut in family.cuts:
            _shrink(layer, cut.name, cut.axis, cut.parts * width)
    tensors = {name: tensor for shard in shards(folder) for name, tensor in load_file(shard).items()}
    _, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval()


def _shrink(layer: Any, name: str, axis: int, length: int) -> None:
    """Cuts a parameter to `length` along `axis`; its values are overwritten by the checkpoint's."""
    import torch

    path, _, attribute = name.rpartition(".")
    module = submodule(layer, path) if _has(layer, path) else None
    parameter = getattr(module, attribute, None)
    if parameter is not None:
        setattr(module, attribute, torch.nn.Parameter(parameter.detach().narrow(axis, 0, length).clone(), requires_grad=False))
    if hasattr(module, "nf") and attribute == "weight" and axis == 1:
        module.nf = length  # transformers' Conv1D reshapes its output by this number


def _has(layer: Any, path: str) -> bool:
    try:
        submodule(layer, path)
    except AttributeError:
        return False
    return True

"""Checkpoints with non-uniform widths, or layers without attention, in transformers, whose `from_pretrained` knows
neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.core.errors import UnsupportedModelError, first_line
from pruning.checkpoint import ModelFolder, open_model, read_tensor
from pruning.families import submodule
from pruning.missing_attention import leave_out_attention, skipped_layers


def load_pruned(folder: ModelFolder | Path | str, dtype: Any = None) -> Any:
    """The causal model of any checkpoint that `export` writes, whatever its layers lack, on the CPU and ready to run.

    Args:
        folder: the checkpoint.
        dtype: a torch dtype; None for the checkpoint's own.

    Returns:
        The transformers model, in evaluation mode.

    Raises:
        UsageError, UnsupportedModelError: as `open_model` does.
    """
    opened = folder if isinstance(folder, ModelFolder) else open_model(Path(folder))
    nonuniform = len(set(opened.widths)) > 1
    model = from_folder(opened, dtype=dtype or "auto", ignore_mismatched_sizes=nonuniform)
    if nonuniform:
        _load_ffn(model, opened)
    for layer in _skipped(opened):
        leave_out_attention(submodule(model, opened.family.layers)[layer])
    return model.eval()


def _skipped(folder: ModelFolder) -> tuple[int, ...]:
    return skipped_layers(folder.config, folder.shape.num_hidden_layers)


def from_folder(folder: ModelFolder, **options: Any) -> Any:
    """What transformers makes of a folder, with the attention that vLLM applies.

    Raises UnsupportedModelError where transformers cannot load it.
    """
    import transformers

    try:
        load = getattr(transformers, folder.family.auto_class).from_pretrained
        model, told = load(folder.path, output_loading_info=True, **options, **_attention(folder))
    except Exception as error:  # each architecture has its own for settings that do not fit each other
        raise UnsupportedModelError(
            f"{folder.path} cannot be loaded by transformers ({type(error).__name__}: {first_line(error)})"
        ) from error
    skipped = _skipped(folder)
    lacking = (name for name in told["missing_keys"] if not folder.family.lacks(name, skipped))
    if missing := sorted(lacking):  # transformers fills them with random numbers
        raise UnsupportedModelError(
            f"{folder.path} has no {missing[0]} ({len(missing)} tensors missing); get the model again"
        )
    return model


def without_weights(folder: ModelFolder, dtype: Any, device: str) -> Any:
    """The model of a folder with its parameters on the meta device; the buffers that no file holds are on `device`."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder.path)
    with torch.device("meta"):
        build = getattr(transformers, folder.family.auto_class).from_config
        model = build(config, dtype=dtype, **_attention(folder))
    for name, buffer in list(model.named_non_persistent_buffers()):
        path, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(path), attribute, torch.empty_like(buffer, device=device))
    model.initialize_weights()  # fills the buffers; on the meta device it does nothing
    return model.requires_grad_(False).eval()


def _attention(folder: ModelFolder) -> dict[str, str]:
    """transformers' fast attention leaves out Gemma 2's cap on attention logits."""
    return {"attn_implementation": "eager"} if folder.config.get("attn_logit_softcapping") else {}


def _load_ffn(model: Any, folder: ModelFolder) -> None:
    """Replaces the FFN's parameters, which transformers made at a single width, by those of the checkpoint."""
    import torch

    layers = submodule(model, folder.family.layers)
    for shard, entry, cut, layer in folder.ffn_entries():
        path, _, attribute = cut.name.rpartition(".")
        module, tensor = submodule(layers[layer], path), read_tensor(shard, entry).to(model.dtype)
        setattr(module, attribute, torch.nn.Parameter(tensor))
        set_features(module, tensor)


def set_features(module: Any, tensor: Any) -> None:
    """Sets the sizes that a linear layer states, by which adapters are made; GPT-2 stores the weight transposed."""
    if tensor.ndim == 2 and hasattr(module, "out_features"):
        module.out_features, module.in_features = tensor.shape
    elif tensor.ndim == 2 and hasattr(module, "nf"):
        module.nx, module.nf = tensor.shape

"""Per-layer FFN widths, and layers without attention, for stock vLLM: an entry point (vllm.general_plugins) that
registers one architecture per family.

A checkpoint with widths of its own per layer keeps its model_type, says FFNPruned<Architecture> in `architectures` and
lists `intermediate_sizes`; layers without attention are listed in `skip_attention`. The registered class is vLLM's own,
with the FFN's linear layers built again at the right width and the missing attention taken out. The module needs vLLM
and nothing else, so that `vllm serve` finds it in any folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

PREFIX = "FFNPruned"
_GATED = ("gate_proj", "up_proj", "gate_up_proj", "down_proj")  # vLLM fuses gate and up
FFN: Mapping[str, tuple[str, ...]] = {  # architecture -> its FFN's linear layers, the down projection last
    **dict.fromkeys(
        (
            "LlamaForCausalLM",
            "Qwen2ForCausalLM",
            "Qwen3ForCausalLM",
            "MistralForCausalLM",
            "Gemma2ForCausalLM",
            "Gemma3ForCausalLM",
            "Phi3ForCausalLM",
            "Olmo2ForCausalLM",
            "GraniteForCausalLM",
            "SmolLM3ForCausalLM",
        ),
        _GATED,
    ),
    "GPTNeoXForCausalLM": ("dense_h_to_4h", "dense_4h_to_h"),
    "OPTForCausalLM": ("fc1", "fc2"),
}


def register() -> None:
    """Called by vLLM in each of its processes; imports no model."""
    from vllm import ModelRegistry

    for architecture in FFN:
        ModelRegistry.register_model(PREFIX + architecture, f"{__name__}:{PREFIX}{architecture}")


def __getattr__(name: str) -> Any:
    """The class of a registered architecture, made when vLLM asks for it."""
    architecture = name.removeprefix(PREFIX)
    if architecture == name or architecture not in FFN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _with_own_widths(name, architecture)


def _with_own_widths(name: str, architecture: str) -> Any:
    from vllm import ModelRegistry

    base = ModelRegistry.models[architecture].load_model_cls()

    def __init__(self: Any, *, vllm_config: Any, prefix: str = "") -> None:
        widths = vllm_config.model_config.hf_config.intermediate_sizes
        _check_widths(
            widths, vllm_config.parallel_config.tensor_parallel_size
        )  # before vLLM's own assertion on the widest layer
        base.__init__(self, vllm_config=vllm_config, prefix=prefix)
        narrow(self, FFN[architecture], widths, vllm_config.quant_config)
        skipped = getattr(vllm_config.model_config.hf_config, "skip_attention", ())
        leave_out_attention(self, skipped, vllm_config.compilation_config.static_forward_context)

    return type(name, (base,), {"__init__": __init__, "__module__": __name__})


def _check_widths(widths: Sequence[int], parallel: int) -> None:
    """Raises ValueError where tensor parallelism does not divide a layer's width."""
    odd = sorted({width for width in widths if width % parallel})
    if odd:
        raise ValueError(
            f"tensor parallel size {parallel} does not divide the FFN widths {odd}; "
            f"prune with --align {128 * parallel}, or use a size that does"
        )


def narrow(model: Any, linear: Sequence[str], widths: Sequence[int], quant_config: Any) -> None:
    """Replaces the FFN's linear layers of every layer by ones of its own width, before any weight is loaded."""
    pattern = re.compile(rf"(?:.*\.)?layers\.(\d+)\.(?:.*\.)?({'|'.join(linear)})")
    for path, module in list(model.named_modules()):
        match = pattern.fullmatch(path)
        if match and hasattr(module, "input_size"):
            parent, _, attribute = path.rpartition(".")
            new = _resized(module, widths[int(match[1])], match[2] == linear[-1], quant_config, path)
            setattr(model.get_submodule(parent), attribute, new)


def _resized(old: Any, width: int, is_down: bool, quant_config: Any, prefix: str) -> Any:
    """A linear layer of the same class, bias and behaviour with `width` inputs (down) or outputs per part (the
    others).
    """
    common = {
        "bias": old.bias is not None,
        "quant_config": quant_config,
        "prefix": prefix,
        "skip_bias_add": old.skip_bias_add,
    }
    if hasattr(old, "return_bias"):
        common["return_bias"] = old.return_bias
    if is_down:
        return type(old)(width, old.output_size, **common)
    if hasattr(old, "output_sizes") and len(old.output_sizes) > 1:
        return type(old)(old.input_size, [width] * len(old.output_sizes), **common)
    return type(old)(old.input_size, width, **common)


def leave_out_attention(model: Any, skipped: Sequence[int], registered: dict[str, Any]) -> None:
    """Takes the attention and its norm out of these layers, before any weight is loaded.

    registered: vLLM's attention by its path, for each of which it would keep a cache.
    """
    pattern = re.compile(r"(?:.*\.)?layers\.(\d+)")
    for path, layer in list(model.named_modules()):
        match = pattern.fullmatch(path)
        if match and int(match[1]) in skipped and hasattr(layer, "self_attn"):
            for name in [name for name in registered if name.startswith(f"{path}.self_attn.")]:
                del registered[name]
            layer.input_layernorm, layer.self_attn = _modules()


def _modules() -> tuple[Any, Any]:
    """What stands in the place of the norm, which also adds up the residual stream, and of the attention."""
    import torch

    class Sum(torch.nn.Module):
        def forward(self, hidden: Any, residual: Any = None) -> Any:
            return hidden if residual is None else (hidden, hidden + residual)

    class NoAttention(torch.nn.Module):
        def forward(self, hidden_states: Any, **_positions: Any) -> Any:
            return torch.zeros_like(hidden_states)

    return Sum(), NoAttention()

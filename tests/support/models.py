"""Models for tests: the embedded one, and random ones of every family."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TINY_MATH = Path(__file__).parents[2] / "harness" / "embedded" / "tiny-math"


SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": 1088,
    "max_position_embeddings": 512,
}


TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def sizes_of(model_type: str) -> dict[str, Any]:
    """SIZES in the words of the architecture, special tokens within the vocabulary."""
    if model_type == "gpt2":
        return {
            "n_embd": 64,
            "n_layer": 3,
            "n_inner": 96,
            "n_head": 2,
            "vocab_size": 1088,
            "n_positions": 512,
            **TOKENS,
        }
    if model_type == "opt":
        plain = {key: SIZES[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")}
        return {**plain, "word_embed_proj_dim": 64, "ffn_dim": 96, "max_position_embeddings": 512, **TOKENS}
    if model_type == "gpt_neox":  # every head has its own keys
        return {
            **{key: value for key, value in SIZES.items() if key not in ("num_key_value_heads", "head_dim")},
            **TOKENS,
        }
    return {**SIZES, **TOKENS}


def build_model(
    model_type: str, folder: Path, tie: bool = False, dtype: str = "float32", shard_size: str = "5GB", **changes: Any
) -> Path:
    """A random model with the embedded model's tokenizer; weights are scaled up so that logits differ clearly."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**sizes_of(model_type), **changes}, tie_word_embeddings=tie)
    model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.15 if parameter.ndim == 2 else 0.3) + (1.0 if "norm" in name else 0.0)
            )
    model.save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(TINY_MATH).save_pretrained(folder)
    return folder

"""Models for tests: the embedded one, and random ones of every family."""

from __future__ import annotations

import json
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


_QWEN_TOKENS = {
    "image_token_id": 1087,
    "video_token_id": 1086,
    "vision_start_token_id": 1085,
    "vision_end_token_id": 1084,
}
_QWEN_TOWER = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": 14,
    "hidden_size": 32,
    "out_hidden_size": 64,
    "intermediate_size": 48,
}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 14,
}
VISION: dict[str, dict[str, Any]] = {  # vision-language models: all but the text model
    "gemma3": {
        "vision_config": {**_SIGLIP, "image_size": 56},
        "mm_tokens_per_image": 4,
        "image_token_index": 1087,
        "boi_token_index": 1086,
        "eoi_token_index": 1085,
    },
    "qwen2_5_vl": {
        **_QWEN_TOKENS,
        "vision_config": {**_QWEN_TOWER, "fullatt_block_indexes": [1]},
    },
    "qwen2_vl": {**_QWEN_TOKENS, "vision_config": {"depth": 2, "embed_dim": 32, "num_heads": 2, "hidden_size": 64}},
    "qwen3_vl": {
        **_QWEN_TOKENS,
        "vision_config": {**_QWEN_TOWER, "deepstack_visual_indexes": [0]},
    },
    "llava": {
        "vision_config": {**_SIGLIP, "model_type": "clip_vision_model", "image_size": 56, "projection_dim": 32},
        "image_token_index": 1087,
    },
}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}}
TEXT: dict[str, dict[str, Any]] = {  # what their text models have besides
    "qwen2_5_vl": _ROPE,
    "qwen2_vl": _ROPE,
    "qwen3_vl": _ROPE,
    "llava": {"model_type": "llama"},
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
    if model_type in VISION:
        return {"text_config": {**SIZES, **TOKENS, **TEXT.get(model_type, {})}, **VISION[model_type]}
    return {**SIZES, **TOKENS}


def auto_class(model_type: str) -> str:
    return "AutoModelForImageTextToText" if model_type in VISION else "AutoModelForCausalLM"


def plain(folder: Path, **options: Any) -> Any:
    """The model as transformers alone loads it."""
    import transformers

    model_type = json.loads((folder / "config.json").read_text())["model_type"]
    return getattr(transformers, auto_class(model_type)).from_pretrained(folder, **options).eval()


def build_model(
    model_type: str, folder: Path, tie: bool = False, dtype: str = "float32", shard_size: str = "5GB", **changes: Any
) -> Path:
    """A random model with the embedded model's tokenizer; weights are scaled up so that logits differ clearly."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**sizes_of(model_type), **changes}, tie_word_embeddings=tie)
    model = getattr(transformers, auto_class(model_type)).from_config(config).to(getattr(torch, dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (0.15 if parameter.ndim == 2 else 0.3) + (1.0 if "norm" in name else 0.0)
            )
    model.save_pretrained(folder, max_shard_size=shard_size)
    AutoTokenizer.from_pretrained(TINY_MATH).save_pretrained(folder)
    return folder

"""Vision-language models: where the supported ones keep their text model, and what is said of the others.

Only the text model is pruned. The vision tower and what joins the two are copied as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import UnsupportedModelError

# config.json's keys for what reads images, by the architectures that have it
_IMAGE_KEYS = ("vision_config", "mm_vision_tower", "visual", "img_processor", "vq_config", "vision_tower", "vit_config")
_INNER_KEYS = ("text_config", "llm_config")  # for the text model inside
_OTHER_KEYS = (*_INNER_KEYS, "image_token_id", "image_token_index")
_SOUND_KEYS = ("audio_config", "speech_config", "encoder_config")
_TEXT_TYPES = {  # text models by the type that a vision-language model or its text_config names
    "llava": "llama",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_text": "qwen3",
}
_TEXT_MODEL = ("model.language_model.", "lm_head.")  # beginnings of its names in transformers' model
_OUTER = ("model_type", "architectures", "dtype", "torch_dtype")  # of the whole model, where both levels have them


@dataclass(frozen=True)
class TextTower:
    """Where a vision-language model keeps its text model.

    Attributes:
        names: How names of the text model's tensors begin in files -> in transformers' own model. Checkpoints of
            several versions of transformers differ here, and vLLM loads all of them.
        vision: How names of the vision tower's tensors begin in files.
        engine: Path of the layer stack in vLLM's model.
    """

    names: Mapping[str, str]
    vision: tuple[str, ...]
    engine: str = "language_model.model.layers"

    def own_name(self, name: str) -> str:
        """A tensor's name in transformers' own model; a name that is not the text model's stays as it is."""
        start = next((start for start in self.names if name.startswith(start)), "")
        return self.names.get(start, "") + name.removeprefix(start)


GEMMA3 = TextTower(
    {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."},
    ("vision_tower.", "model.vision_tower."),
)
QWEN2_5_VL = TextTower(
    {f"model.{part}.": f"model.language_model.{part}." for part in ("embed_tokens", "layers", "norm")},
    ("visual.", "model.visual."),
)


def text_level(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config.json with what it says of the text model at the top, where text-only models have it.

    Older checkpoints have it there anyway. transformers ties the head where either level says so.
    """
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return config
    tied = [level["tie_word_embeddings"] for level in (config, text) if "tie_word_embeddings" in level]
    outer = {key: config[key] for key in _OUTER if config.get(key) is not None}
    return {**config, **text, **outer, **({"tie_word_embeddings": any(tied)} if tied else {})}


def with_text_sizes(config: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """config.json with other sizes of the text model: in text_config, and in the copy at the top if there is one."""
    text = config.get("text_config")
    if not isinstance(text, Mapping):
        return {**config, **sizes}
    top = {key: value for key, value in sizes.items() if key in config}
    return {**config, **top, "text_config": {**text, **sizes}}


def is_beside(tower: TextTower, name: str) -> bool:
    """Whether a tensor in a file belongs to anything but the text model."""
    return not tower.own_name(name).startswith(_TEXT_MODEL)


def check_towers(path: Path, model_type: str, tower: TextTower, names: Sequence[str]) -> None:
    """Raises UnsupportedModelError where the files do not hold both towers."""
    if all(is_beside(tower, name) for name in names):
        raise UnsupportedModelError(
            f"{path} says in config.json that it is {model_type}, a vision-language model, and has no tensor of its "
            f"text model ({next(iter(tower.names))}); get the model again, or the config.json of these weights"
        )
    if not any(name.startswith(tower.vision) for name in names):
        raise UnsupportedModelError(
            f"{path} says in config.json that it is {model_type}, a vision-language model, and has no tensor of its "
            f"vision tower ({tower.vision[0]}); get the model again, or the config.json of these weights"
        )


def refuse_multimodal(config: Mapping[str, Any], text_models: Mapping[str, str], supported: Iterable[str]) -> None:
    """Raises UnsupportedModelError for a model that reads images or sound, with how to save its text model alone.

    Args:
        config: config.json of a model that is not among `supported`.
        text_models: the text-only models that can be pruned: model_type -> transformers' class.
        supported: model_type of each vision-language model that can be pruned.
    """
    model_type = str(config.get("model_type"))[:80]
    keys = _IMAGE_KEYS if model_type in text_models else (*_IMAGE_KEYS, *_OTHER_KEYS, *_SOUND_KEYS)
    has = [key for key in keys if config.get(key) is not None]
    if not has:
        return
    sound = not any(key in _IMAGE_KEYS for key in has) and any(key in _SOUND_KEYS for key in has)
    kind = "an audio-language model (it reads sound)" if sound else "a vision-language model (it reads images)"
    named = f"{model_type} with {has[0]}" if model_type in text_models else model_type
    raise UnsupportedModelError(
        f"{named} is {kind}; only text models, and the text models inside {' and '.join(supported)}, can be "
        f"pruned here: {_advice(config, model_type, text_models)}"
    )


def _advice(config: Mapping[str, Any], model_type: str, text_models: Mapping[str, str]) -> str:
    """How to save the text model alone, if it is one that can be pruned."""
    found = (config[key] for key in _INNER_KEYS if isinstance(config.get(key), Mapping))
    inner: Mapping[str, Any] = next(found, {})
    named = str(inner.get("model_type") or model_type)[:80]
    kind = _TEXT_TYPES.get(named, named)
    if kind not in text_models:
        return f"its text model ({named}) is not of a known kind"
    return (
        f"save its text model as {text_models[kind]} of transformers, as docs/your-model.md shows, and give that folder"
    )

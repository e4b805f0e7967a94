"""The model that config.json describes, built by transformers without weights, before any work is done with it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from harness.core.bounded_read import is_count
from harness.core.errors import UnsupportedModelError, first_line
from pruning.checkpoint import ModelFolder
from pruning.config_sizes import MOST_SIZES
from pruning.loader import from_folder

_VISION_LAYERS = ("num_hidden_layers", "depth")  # names for their number


def check_buildable(model: ModelFolder) -> None:
    """Builds a model in transformers without memory for its weights, and compares its tensors with those of the files.

    Raises UnsupportedModelError where config.json holds what transformers refuses, or a tensor is missing or has
    another shape, also of the parts beside the text model.
    """
    if importlib.util.find_spec("torch") is None:  # a dry run does without
        return
    _check_vision(model)
    with _silent():
        _build(model)
        from_folder(model, device_map="meta", ignore_mismatched_sizes=not model.shape.uniform)


def _check_vision(model: ModelFolder) -> None:
    """Raises UnsupportedModelError where building the vision tower would not end."""
    vision, most = model.config.get("vision_config"), MOST_SIZES["num_hidden_layers"]
    found = {key: vision[key] for key in _VISION_LAYERS if key in vision} if isinstance(vision, dict) else {}
    if wrong := [key for key, value in found.items() if not is_count(value, most, 1)]:
        raise UnsupportedModelError(
            f"{model.path / 'config.json'}: vision_config has no usable {wrong[0]}; get the model again"
        )


def _build(model: ModelFolder) -> None:
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(model.path)
        with torch.device("meta"):
            getattr(transformers, model.family.auto_class).from_config(config)
    except Exception as error:  # each architecture has its own for settings that do not fit each other
        raise UnsupportedModelError(
            f"{model.path / 'config.json'}: transformers cannot build this model "
            f"({type(error).__name__}: {first_line(error)}); get the model again"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bar and no table of missing tensors: what is wrong is told in one line."""
    from transformers.utils import logging

    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()

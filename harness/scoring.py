"""Calibration and scoring of one model on one task: the first stages, and `harness score` alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.store import file_hash, load_arrays, save_arrays, write_json
from harness.types import ActivationStats, CalibrationItem, CalibrationSet, NeuronScores, TokenScope
from pruning.activations import collect
from pruning.calibration import build_calibration, question_ids
from pruning.checkpoint import fingerprint, read_config
from pruning.families import family_of
from pruning.scores import score
from tasks import registry
from tasks.registry import Task

_SEED = 42  # the paper's split seed; which prompts are scored does not depend on --seed, which is for random pruning


def load_tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise UsageError(f"{model} has no tokenizer that transformers can read ({str(error).splitlines()[0]})") from error


def has_chat_template(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def calibrate(model: Path, name: str, task: Task, samples: int, tokens: TokenScope) -> CalibrationSet:
    """`samples` target prompts and twice as many distractors, as in the paper."""
    tokenizer = load_tokenizer(model)
    target_source, target = registry.calibration(task, samples, _SEED)
    sources, general = registry.distractors(task, 2 * samples, _SEED)
    chat = has_chat_template(tokenizer)
    return build_calibration(tokenizer, name, fingerprint(model), target, general, (target_source, sources), tokens, chat)


def task_prompts(model: Path, task: Task, count: int) -> list[list[int]]:
    """Training prompts of the task as token ids, in the form in which it is evaluated."""
    tokenizer = load_tokenizer(model)
    _, examples = registry.calibration(task, count, _SEED)
    return [question_ids(tokenizer, example, has_chat_template(tokenizer)) for example in examples]


def save_calibration(calibration: CalibrationSet, path: Path) -> None:
    write_json(path, asdict(calibration))


def load_calibration(path: Path) -> CalibrationSet:
    raw = json.loads(path.read_text(encoding="utf-8"))
    items = tuple(CalibrationItem(i["target"], tuple(i["token_ids"]), i["start"], i["stop"]) for i in raw["items"])
    return CalibrationSet(raw["model"], raw["model_hash"], raw["target_source"], tuple(raw["distractor_sources"]), raw["tokens"], items)


def measure_activations(model: Path, calibration: CalibrationSet, threads: int | None, progress: Callable[[int], None]) -> ActivationStats:
    """Loads the dense model (FP32 on a CPU, BF16 on CUDA) and runs its body over the calibration set."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads or os.cpu_count() or 1)
    cuda = torch.cuda.is_available()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16 if cuda else torch.float32)
    loaded.eval().to("cuda" if cuda else "cpu")
    return collect(loaded, family_of(read_config(model)), calibration, progress)


def save_scores(stats: ActivationStats, calibration: CalibrationSet, path: Path) -> None:
    """`layers.{i}.{metric}` float32 and the moments they came from; the same scores give the same bytes."""
    moments = {
        "target.mean": stats.target.mean, "target.m2": stats.target.m2,
        "distractor.mean": stats.distractor.mean, "distractor.m2": stats.distractor.m2,
        "second_moment": stats.second_moment, "down_norm": stats.down_norm,
    }  # fmt: skip
    tables = {**score(stats), **{f"moments.{name}": values.astype(np.float64) for name, values in moments.items()}}
    arrays = {f"layers.{layer}.{name}": values[layer] for name, values in tables.items() for layer in range(len(values))}
    metadata = {
        "model": calibration.model, "model_hash": calibration.model_hash,
        "tokens": calibration.tokens, "calibration_hash": stats.calibration_hash,
        "target": calibration.target_source, "distractors": json.dumps(calibration.distractor_sources),
        "n_target": str(stats.target.count), "n_distractor": str(stats.distractor.count), "layers": str(len(stats.down_norm)),
    }  # fmt: skip
    save_arrays(path, arrays, metadata)


def load_scores(path: Path) -> NeuronScores:
    """Raises UsageError where the file holds no scores."""
    arrays, meta = load_arrays(path, "harness score")
    if "calibration_hash" not in meta:
        raise UsageError(f"{path} holds no scores; make them with `harness score`")
    layers = int(meta["layers"])
    names = sorted({key.split(".", 2)[2] for key in arrays if ".moments." not in key})
    tables = {name: np.stack([arrays[f"layers.{layer}.{name}"] for layer in range(layers)]) for name in names}
    return NeuronScores(tables, meta["model"], meta["model_hash"], meta["tokens"], meta["calibration_hash"], file_hash(path))  # type: ignore[arg-type]

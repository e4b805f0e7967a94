"""`harness plan MODEL --device D`: sizes, KV capacity and ideal speed-up at several ratios, beside what runs at hand
have measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.labels import is_as_asked
from harness.core.run_file import read_run
from harness.core.types.pruning import ModelShape
from harness.engine.devices import check_divides
from harness.engine.memory_budget import kv_copies
from harness.models import registry
from harness.pipeline.arms import plan_request
from harness.pipeline.named_tasks import task_names
from harness.serving.roofline import (
    Device,
    decode_work,
    engine_shape,
    find_device,
    ideal_speedup,
    kv_capacity_tokens,
    roofline_speedup,
)
from pruning.plan import check_request, uniform_width
from reports.figures import mebibytes, percent, short_count
from reports.parts import Table
from tasks.registry import find_task, is_task

_RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
_CONTEXT = 2048
_BUSY = 32  # requests at a time, beside one alone
_RUNS = Path("runs")


@dataclass(frozen=True)
class IdealSpeedup:
    """Bounds on the speed-up of one decoding step.

    Attributes:
        flops: By operations alone.
        bytes: By bytes read alone.
        roofline: By whatever takes longer on this device; None where its speeds are unknown.
    """

    flops: float
    bytes: float
    roofline: float | None


@dataclass(frozen=True)
class DeviceRow:
    """A model at one ratio on a device.

    Attributes:
        ratio_requested: Fraction of FFN neurons to remove, before alignment.
        ratio_neurons: Fraction of FFN neurons that would be removed.
        kv_capacity_tokens: Tokens that the KV cache holds beside the weights.
        requests: Requests of the table's context length that fit into the cache together.
        ideal: Requests at a time, "1" or "32" -> speed-up.
        measured: Speed-ups measured by runs below `runs`, as text.
    """

    ratio_requested: float
    ratio_neurons: float
    intermediate_size: int
    parameters: int
    weight_bytes: int
    kv_capacity_tokens: int
    requests: int
    ideal: Mapping[str, IdealSpeedup]
    measured: tuple[str, ...]


@dataclass(frozen=True)
class DeviceTable:
    """A model at several ratios on a device. `harness plan MODEL --device D --json` prints these fields.

    Attributes:
        context: Tokens of a request.
        kv_bytes_per_token: Of the KV cache, at every ratio the same.
    """

    model: str
    device: Device
    context: int
    kv_bytes_per_token: int
    rows: tuple[DeviceRow, ...]


def on_device(config: RunConfig, ratio: float | None, device: str, context: int | None) -> DeviceTable:
    """Everything by formula; no weights are loaded.

    Args:
        config: Names the model and says how it is pruned.
        ratio: Shown beside the dense model; None: ratios from 0.1 to 0.5.
        device: A name such as A100-80, or a memory size such as 24GiB; several as 2xA100-80.
        context: Tokens of a request; None: 2048, or what the model can take.

    Raises:
        UsageError: The device is unknown, its GPUs cannot divide the model, or the model cannot take the context.
    """
    where, names = find_device(device), task_names(config)
    shape = engine_shape(registry.shape(config.model, find_task(names[0]).kind if is_task(names[0]) else "general"))
    length = context or min(_CONTEXT, shape.max_position_embeddings)
    if length > shape.max_position_embeddings:
        raise UsageError(
            f"--context {length} is more than the {shape.max_position_embeddings} tokens that {config.model} can take"
        )
    check_divides(config.model, shape, (shape.intermediate_size,), where.count)
    measured = list(_measured(shape, _RUNS))
    rows = []
    for each in _RATIOS if ratio is None else (0.0, ratio):
        asked = config.model_copy(update={"ratio": each, "tensor_parallel": where.count, "structure": "neuron"})
        request = plan_request(asked, shape.intermediate_size)
        check_request(request, shape.intermediate_size)
        width = uniform_width(request, shape.intermediate_size)
        row = _row(shape, shape.narrowed(width), where, length)
        texts = tuple(text for size, text in measured if size == width)
        rows.append(replace(row, ratio_requested=each, measured=texts))
    return DeviceTable(
        model=config.model,
        device=where,
        context=length,
        kv_bytes_per_token=shape.kv_bytes_per_token * kv_copies(shape.num_key_value_heads, where.count),
        rows=tuple(rows),
    )


def _row(dense: ModelShape, shape: ModelShape, device: Device, context: int) -> DeviceRow:
    capacity = kv_capacity_tokens(shape, device)
    return DeviceRow(
        ratio_requested=0.0,
        ratio_neurons=1 - shape.intermediate_size / dense.intermediate_size,
        intermediate_size=shape.intermediate_size,
        parameters=shape.parameters,
        weight_bytes=shape.parameters * shape.dtype_bytes,
        kv_capacity_tokens=capacity,
        requests=capacity // context,
        ideal={str(level): _ideal(dense, shape, device, level, context) for level in (1, _BUSY)},
        measured=(),
    )


def _ideal(dense: ModelShape, shape: ModelShape, device: Device, concurrency: int, context: int) -> IdealSpeedup:
    old, new = (decode_work(s, concurrency, context, shape.dtype_bytes, device.count) for s in (dense, shape))
    flops, read = ideal_speedup(old, new)
    return IdealSpeedup(flops=flops, bytes=read, roofline=roofline_speedup(old, new, device))


def _measured(dense: ModelShape, runs: Path) -> Iterator[tuple[int, str]]:
    """(FFN width, speed-up as text) from every run.json below `runs` whose baseline has this model's sizes."""
    for file in sorted(runs.glob("*/run.json")):
        try:
            run = read_run(file.parent)
            by_name = {variant["name"]: variant for variant in run["variants"]}
            for ratio in (
                each for each in run["speed_ratios"] if each["variant"] in by_name
            ):  # not dense against itself
                base, variant = by_name[ratio["baseline"]], by_name[ratio["variant"]]
                sizes = (base["parameters"], set(base["intermediate_sizes"]), len(base["intermediate_sizes"]))
                same = sizes == (dense.parameters, {dense.intermediate_size}, dense.num_hidden_layers)
                width = variant["intermediate_sizes"][0]
                alone = variant["parameters"] == dense.narrowed(width).parameters  # nothing but neurons went
                if (
                    same
                    and alone
                    and len(set(variant["intermediate_sizes"])) == 1
                    and ratio["quantity"] == "output_tok_s"
                ):
                    yield width, _in_words(ratio, variant["serving"]["device"], file.parent.name)
        except (KeyError, TypeError, UsageError):
            continue  # damaged, or of variants that were not timed


def _in_words(ratio: dict[str, Any], device: str, run: str) -> str:
    interval = f" ({ratio['ci_low']:.2f} to {ratio['ci_high']:.2f})" if ratio["pairs"] > 1 else ""
    return f"{ratio['ratio']:.2f}x{interval} at {ratio['concurrency']} on {device}, {run}"


def device_table(made: DeviceTable) -> Table:
    """The table for a terminal."""
    sizes = ("ratio", "FFN width", "params", "weights", "KV tokens", f"requests of {made.context:,}")
    known = (
        "roofline of its published speeds"
        if made.device.flops
        else "by operations / by bytes read, since only its memory is known"
    )
    each = " each, by tensor parallelism" if made.device.count > 1 else ""
    note = (
        f"By formula. KV tokens: what the cache holds; {made.kv_bytes_per_token:,} bytes per "
        "token at every ratio; pruning frees weights, and "
        f"the cache takes their place. Ideal speed-up of decoding with 1 and {_BUSY} requests of {made.context:,} "
        f"tokens at a time: {known}. measured: by runs of this model below runs/."
    )
    return Table(
        f"{made.model} on {made.device.name} ({mebibytes(made.device.memory_bytes)}{each})",
        (*sizes, "ideal, 1", f"ideal, {_BUSY}", "measured"),
        tuple(map(_cells, made.rows)),
        note,
    )


def _cells(row: DeviceRow) -> tuple[str, ...]:
    asked, done = row.ratio_requested, row.ratio_neurons
    return (
        percent(asked, 0) + ("" if is_as_asked(asked, done) else f", doing {percent(done)}"),
        f"{row.intermediate_size:,}",
        short_count(row.parameters),
        mebibytes(row.weight_bytes),
        f"{row.kv_capacity_tokens:,}",
        f"{row.requests:,}",
        *(_ideal_text(row.ideal[level]) for level in ("1", str(_BUSY))),
        "; ".join(row.measured),
    )


def _ideal_text(ideal: IdealSpeedup) -> str:
    if ideal.roofline is not None:
        return f"{ideal.roofline:.2f}x"
    return f"{ideal.flops:.2f}x / {ideal.bytes:.2f}x"

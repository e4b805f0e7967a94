"""Throughput against the width in a sweep: each arm beside the dense model on the same requests, interleaved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.core.hashing import digest
from harness.core.types.pruning import ModelShape
from harness.core.types.serving import DTYPE_BYTES, ServingResult, SpeedRatio
from harness.engine import vllm_engine, weight_swap
from harness.engine.vllm_engine import Engines
from harness.pipeline.resolve import DENSE
from harness.pipeline.run import Run
from harness.pipeline.run_json import read_serving, save_serving
from harness.serving import bench
from harness.serving.timing import Pass, interleaved, offline_round, serving_row, speed_ratios
from harness.serving.workload import Workload
from pruning.export import export
from pruning.plan import load_plan

_LEAST_SECONDS = 0.3  # of a pass: many short pairs are more precise than few long ones
Timed = tuple[dict[str, ServingResult], list[SpeedRatio]]  # the dense model and one arm


def measure_speed(run: Run, plans: Mapping[str, Path], attempt: Callable[[str], AbstractContextManager[None]]) -> None:
    """Writes serving.json from one file per arm. `attempt` wraps what may fail for one arm alone."""
    with _timer(run) as timed:
        for name, plan in plans.items():
            with attempt(f"time {name}"), run.stage(f"time {name}", _inputs(run, name), [_file(run, name)]) as work:
                if work:
                    save_serving(*timed(name, plan), _file(run, name))
    found: dict[str, ServingResult] = {}
    ratios: list[SpeedRatio] = []
    for name in plans:
        if run.directory.finished(f"time {name}", _inputs(run, name)):
            variants, faster = read_serving(_file(run, name))
            found, ratios = {**variants, **found}, [*ratios, *faster]
    save_serving(found, ratios, run.path / "serving.json")


def _file(run: Run, name: str) -> Path:
    return run.path / "timed" / f"{name}.json"


def _inputs(run: Run, name: str) -> str:
    config = run.config
    return digest(
        [
            run.identity[DENSE],
            run.identity[name],
            asdict(run.workload),
            config.concurrency,
            config.repeats,
            config.threads,
        ]
    )


@contextmanager
def _timer(run: Run) -> Iterator[Callable[[str, Path], Timed]]:
    """On a CPU one engine is repacked at every width; on CUDA, where a swap keeps the width, each arm is exported
    temporarily.
    """
    if vllm_engine.device_name() == "cuda":
        yield lambda name, plan: _by_export(run, name, plan)
        return
    models = {DENSE: run.model}
    settings = bench.settings_for(models, run.config, run.workload)
    with Engines(models, settings, run.workload.context) as engines:
        yield lambda name, plan: _by_swap(run, engines, name, plan)


def _by_swap(run: Run, engines: Engines, name: str, plan: Path) -> Timed:
    config, workload, llm = run.config, replace(run.workload, least_seconds=_LEAST_SECONDS), engines[DENSE]
    passes = interleaved(
        swapping_runners(llm, {DENSE: None, name: plan}, workload), config.concurrency, config.repeats, workload
    )
    rows = {
        each: tuple(serving_row(*level) for level in zip(config.concurrency, found, strict=True))
        for each, found in passes.items()
    }
    cache = bench.offline_cache(llm, engines.configs[DENSE])
    dense = bench.serving_result(run.model, config.dtype, cache, rows[DENSE], workload, "offline")
    found = {each: replace(dense, concurrency=rows[each], **_sizes(run, each, dense)) for each in rows}
    shapes = {each: _shape(run, each) for each in rows}
    return found, speed_ratios(rows, shapes, workload, DTYPE_BYTES[dense.dtype])


def swapping_runners(
    llm: Any, plans: Mapping[str, Path | None], workload: Workload
) -> dict[str, Callable[[int], Pass]]:
    """One engine as several bench targets; swapping weights is not timed."""
    inside: list[str | None] = [None]

    def ask(name: str, level: int) -> Pass:
        if inside[0] != name:
            plan = plans[name]
            weight_swap.swap(llm, plan) if plan else weight_swap.restore(llm)
            inside[0] = name
        return offline_round(llm, workload, level)

    return {name: lambda level, name=name: ask(name, level) for name in plans}  # type: ignore[misc]


def _sizes(run: Run, name: str, dense: ServingResult) -> dict[str, Any]:
    made, shape = run.variants[name], _shape(run, name)
    return {
        "weight_bytes": made.weight_bytes,
        "forecast": {**dense.forecast, "weight_bytes": shape.parameters * shape.dtype_bytes},
    }


def _shape(run: Run, name: str) -> ModelShape:
    widths = run.variants[name].intermediate_sizes
    whole = replace(run.spec.shape, parameters=run.variants[DENSE].parameters)
    return replace(
        whole, parameters=whole.pruned_parameters(widths), intermediate_size=round(sum(widths) / len(widths))
    )


def _by_export(run: Run, name: str, plan: Path) -> Timed:
    """Times an exported arm beside the dense model, both on the device."""
    config, workload, scratch = run.config, run.workload, run.path / "timed" / name
    try:
        models = {DENSE: run.model, name: export(run.model, load_plan(plan), scratch, plan).path}
        with Engines(models, bench.settings_for(models, config, workload), workload.context) as engines:
            targets = bench.offline_targets(engines, models, workload)
            passes = interleaved(
                {each: subject.round for each, subject in targets.items()},
                config.concurrency,
                config.repeats,
                workload,
            )
            return bench.results(models, targets, passes, config, workload, "offline")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

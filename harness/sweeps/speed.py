"""Throughput along the widths of a sweep, each arm beside the dense model on the same requests, interleaved."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.dtypes import BY_NAME
from harness.core.hashing import digest
from harness.core.progress import say
from harness.core.types.pruning import ModelShape
from harness.core.types.serving import ServingResult, SpeedRatio
from harness.engine import weight_swap
from harness.engine.devices import device_name
from harness.engine.memory_budget import NOTHING_TIMED, fit_together
from harness.engine.vllm_engine import Engines
from harness.pipeline import stages
from harness.pipeline.resolve import DENSE
from harness.pipeline.run_context import RunContext, VariantState
from harness.pipeline.run_files import serving_file
from harness.pipeline.run_json import read_serving, save_serving
from harness.serving import bench
from harness.serving.timing import Pass, interleaved, offline_round, serving_row, speed_ratios
from harness.serving.workload import Workload, in_vocabulary_of, longest
from pruning.checkpoint import ModelFolder
from pruning.export import export
from pruning.plan_file import load_plan

_LEAST_SECONDS = 0.3  # of a pass: many short pairs say more than few long ones
LONGER = 3  # times as many passes, where the interval of fewer leaves it open
AGAIN = stages.AGAIN
Timed = tuple[dict[str, ServingResult], list[SpeedRatio]]  # the dense model and one arm


def measure_speed(
    run: RunContext,
    arms: Sequence[VariantState],
    attempt: Callable[[str], AbstractContextManager[None]],
    longer: Collection[str] = (),
) -> None:
    """Times every arm, and the dense model once more, beside the dense model; writes serving.json, from a file each.

    Args:
        run: The sweep's run directory.
        arms: The planned variants to time; those that are exported run from their checkpoints.
        attempt: A context for what may fail for one arm alone.
        longer: Arms that are timed by `LONGER` times as many passes.
    """
    arms = [replace(run.base, name=AGAIN), *arms] if arms else []
    if arms and not fit_together({DENSE: run.model, AGAIN: run.model}, run.config.tensor_parallel, run.config.dtype):
        say(NOTHING_TIMED)
        arms = []
    exported = any(arm.plan and isinstance(arm.checkpoint, ModelFolder) for arm in arms)
    with _timer(run, exported) as timed:
        for arm in arms:
            passes = _passes(run, arm, longer)
            file, stage = _file(run, arm, passes), _stage(run, arm, passes)
            with attempt(stage), run.directory.stage(stage, _inputs(run, arm, passes), [file]) as work:
                if work:
                    save_serving(*timed(arm, passes), file)
    variants: dict[str, ServingResult] = {}
    ratios: list[SpeedRatio] = []
    for arm in arms:
        if is_timed(run, arm, longer):
            results, faster = read_serving(_file(run, arm, _passes(run, arm, longer)))
            variants, ratios = {**results, **variants}, [*ratios, *faster]
    variants.pop(AGAIN, None)
    save_serving(variants, ratios, serving_file(run.path))


def rename_timed(run: RunContext, names: Mapping[str, str]) -> None:
    """Gives what was timed, in serving.json, to other variants of the same sizes. names: Of each, its new one."""
    variants, ratios = read_serving(serving_file(run.path))
    renamed = {names.get(name, name): result for name, result in variants.items()}
    ratios = [replace(ratio, variant=names.get(ratio.variant, ratio.variant)) for ratio in ratios]
    save_serving(renamed, ratios, serving_file(run.path))


def is_timed(run: RunContext, arm: VariantState, longer: Collection[str] = ()) -> bool:
    """Whether `measure_speed` has timed a variant before, so that it needs no checkpoint for it."""
    passes = _passes(run, arm, longer)
    return run.directory.finished(_stage(run, arm, passes), _inputs(run, arm, passes))


def _passes(run: RunContext, arm: VariantState, longer: Collection[str]) -> int:
    return run.config.repeats * (LONGER if arm.name in longer else 1)


def _stage(run: RunContext, arm: VariantState, passes: int) -> str:
    return f"time {arm.name}" if passes == run.config.repeats else f"time {arm.name} in {passes} passes"


def _file(run: RunContext, arm: VariantState, passes: int) -> Path:
    ending = "" if passes == run.config.repeats else f"-{passes}-passes"
    return run.path / "timed" / f"{arm.name}{ending}.json"


def _inputs(run: RunContext, arm: VariantState, passes: int) -> str:
    config, workload = run.config, asdict(run.workload)
    return digest([run.base.identity, arm.identity, workload, config.concurrency, passes, config.threads])


@contextmanager
def _timer(run: RunContext, exported: bool) -> Iterator[Callable[[VariantState, int], Timed]]:
    """On a CPU one engine takes the weights of every width in turn; on CUDA, where a swap leaves the width, each arm
    is exported for the time of its measurement. exported: Each arm has a checkpoint, as where layers are removed.
    """
    if exported or device_name() == "cuda":
        yield lambda arm, passes: _by_export(run, arm, passes)
        return
    models = {DENSE: run.model}
    settings = bench.settings_for(models, run.config, run.workload)
    with Engines(models, settings) as engines:
        yield lambda arm, passes: _by_swap(run, engines, arm, passes)


def _by_swap(run: RunContext, engines: Engines, arm: VariantState, repeats: int) -> Timed:
    config, workload, llm = run.config, replace(run.workload, least_seconds=_LEAST_SECONDS), engines[DENSE]
    runners = swapping_runners(llm, {DENSE: None, arm.name: arm.plan}, workload)
    passes = interleaved(runners, config.concurrency, repeats, workload)
    rows = {
        name: tuple(serving_row(*level) for level in zip(config.concurrency, of_variant, strict=True))
        for name, of_variant in passes.items()
    }
    dense = bench.serving_result(bench.offline_engine(engines, DENSE), rows[DENSE], workload)
    shapes = {DENSE: _shape(run, run.base), arm.name: _shape(run, arm)}
    narrow = replace(
        dense,
        concurrency=rows[arm.name],
        weight_bytes=arm.checkpoint.weight_bytes,
        forecast={**dense.forecast, "weight_bytes": shapes[arm.name].parameters * shapes[arm.name].dtype_bytes},
    )
    return {DENSE: dense, arm.name: narrow}, speed_ratios(rows, shapes, workload, BY_NAME[dense.dtype].item_bytes)


def swapping_runners(
    llm: Any, plans: Mapping[str, Path | None], workload: Workload
) -> dict[str, Callable[[int], Pass]]:
    """One engine as several variants; the time to swap their weights is not measured."""
    inside: list[str | None] = [None]

    def ask(name: str, level: int) -> Pass:
        if inside[0] != name:
            plan = plans[name]
            weight_swap.swap(llm, plan) if plan else weight_swap.restore(llm)
            inside[0] = name
        return offline_round(llm, workload, level)

    return {name: partial(ask, name) for name in plans}


def _shape(run: RunContext, state: VariantState) -> ModelShape:
    widths = state.checkpoint.widths
    whole = replace(run.spec.shape, parameters=run.base.checkpoint.parameters)
    return replace(
        whole, parameters=whole.pruned_parameters(widths), intermediate_size=round(sum(widths) / len(widths))
    )


def _by_export(run: RunContext, arm: VariantState, repeats: int) -> Timed:
    """Beside the dense model, on the device together."""
    config, workload, scratch = run.config, run.workload, run.path / "timed" / arm.name
    try:
        made = arm.checkpoint
        if not isinstance(made, ModelFolder):
            assert arm.plan is not None, f"{arm.name} has no plan"
            made = export(run.model, load_plan(arm.plan), scratch, arm.plan)
        models = {DENSE: run.model, arm.name: made}
        workloads = {name: in_vocabulary_of(model, workload, run.model) for name, model in models.items()}
        with Engines(models, bench.settings_for(models, config, longest(workloads))) as engines:
            targets = bench.offline_targets(engines, workloads)
            runners = {name: target.round for name, target in targets.items()}
            passes = interleaved(runners, config.concurrency, repeats, workload)
            return bench.results(targets, passes, config, workload)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)

"""Times structures of a model that need not exist: folders with a config.json alone, whose weights vLLM makes up."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness.core.hashing import digest
from harness.core.memory import available_bytes
from harness.core.processors import cpu_name
from harness.engine.devices import device_name
from harness.engine.memory_budget import EngineSettings, fit_together, loaded_bytes, working_dtype
from harness.engine.vllm_engine import engines_for
from harness.models.registry import cache_folder
from harness.serving.cost_table import CostTable, Sizes, Timed, fitted_table
from harness.serving.timing import Pass, interleaved, offline_round
from harness.serving.workload import Workload
from harness_prune.vllm_name import vllm_version
from pruning.checkpoint import ModelFolder
from pruning.families import shape_of, widths_of

HELD_OUT = "mixed"
_CPU_ENGINE_BYTES = 1 << 30  # of an engine on a CPU beside weights and cache: libraries and activations, an estimate
Configured = Callable[[Sizes], Mapping[str, Any]]  # config.json of the model with other sizes


@dataclass(frozen=True)
class Timing:
    """How structures are timed: the requests, how many are in flight, passes of each, and the engines' settings."""

    workload: Workload
    concurrency: tuple[int, ...]
    repeats: int
    settings: EngineSettings


def table_file(model: ModelFolder, timing: Timing) -> Path:
    """Where the costs of a model's structure lie on this machine: by device, cores, shape, engine and requests."""
    lengths = [len(prompt) for prompt in timing.workload.prompts]
    requests = [lengths, timing.workload.output_tokens, timing.workload.requests]
    engine = [asdict(timing.settings), working_dtype(model, timing.settings.dtype), vllm_version(), *_cores(timing)]
    key = digest([_device(), asdict(model.shape), engine, requests, timing.concurrency, timing.repeats])
    return cache_folder() / "costs" / f"{key}.json"


def measure_costs(model: ModelFolder, probes: Mapping[str, Sizes], configured: Configured, timing: Timing) -> CostTable:
    """Times the structures, interleaved, and fits the costs to all but `HELD_OUT`.

    Args:
        model: The dense model; its weights are not read.
        probes: What to time by name, the dense model's sizes first.
        configured: The config.json of each.
        timing: How.

    Raises:
        MeasurementError: vLLM cannot run one of them, or has no room for two at a time.
    """
    timing = replace(timing, workload=replace(timing.workload, stop_at_eos=False))
    with _folders(model, probes, configured) as folders:
        passes = _passes(model, folders, probes, timing)
    timed = [Timed(name, sizes, _seconds(passes[name])) for name, sizes in probes.items()]
    held_out = next((each for each in timed if each.name == HELD_OUT), None)
    fitted = [each for each in timed if each is not held_out]
    return fitted_table(_device(), timing.concurrency, fitted, held_out)


def _passes(
    model: ModelFolder, folders: Mapping[str, ModelFolder], probes: Mapping[str, Sizes], timing: Timing
) -> dict[str, list[list[Pass]]]:
    """All side by side, or each beside the first where the device has no room for more."""
    made_up = {**timing.settings.options, "load_format": "dummy", "tokenizer": str(model.path)}
    settings = replace(timing.settings, options=made_up)
    workloads = {name: _within(timing.workload, sizes.vocabulary) for name, sizes in probes.items()}
    first, *others = folders
    found: dict[str, list[list[Pass]]] = {name: [[] for _ in timing.concurrency] for name in folders}
    for names in [list(folders)] if _all_fit(folders, settings) else [[first, other] for other in others]:
        with engines_for({name: folders[name] for name in names}, settings) as engines:
            runners = {name: partial(offline_round, engines[name], workloads[name]) for name in names}
            timed = interleaved(runners, timing.concurrency, timing.repeats, timing.workload)
        for name, levels in timed.items():
            found[name] = [[*before, *passes] for before, passes in zip(found[name], levels, strict=True)]
    return found


def _all_fit(folders: Mapping[str, ModelFolder], settings: EngineSettings) -> bool:
    """Whether engines on all have room side by side; on a CPU in the memory that is available now. Each is counted with
    the weights of the dense model.
    """
    if not fit_together(folders, settings.tensor_parallel, settings.dtype):
        return False
    beside = (settings.kv_cache_bytes or 0) + _CPU_ENGINE_BYTES
    needed = sum(loaded_bytes(folder, settings.dtype) + beside for folder in folders.values())
    return device_name() == "cuda" or needed <= available_bytes()


@contextmanager
def _folders(
    model: ModelFolder, probes: Mapping[str, Sizes], configured: Configured
) -> Iterator[dict[str, ModelFolder]]:
    """Of each structure, a folder that an engine can be started on; they are removed on leaving."""
    with TemporaryDirectory(prefix="harness-costs-") as scratch:
        found = {}
        for number, (name, sizes) in enumerate(probes.items()):
            folder, config = Path(scratch) / str(number), {**configured(sizes), "vocab_size": sizes.vocabulary}
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            found[name] = replace(model, path=folder, config=config, shape=shape_of(config), widths=widths_of(config))
        yield found


def _within(workload: Workload, rows: int) -> Workload:
    """Prompts of the same lengths whose tokens are in a smaller vocabulary."""
    prompts = tuple(tuple(token % rows for token in prompt) for prompt in workload.prompts)
    return replace(workload, prompts=prompts)


def _seconds(levels: Sequence[Sequence[Pass]]) -> tuple[float, ...]:
    """Per output token at each concurrency, medians over the passes."""
    return tuple(statistics.median(each.seconds / sum(each.answers) for each in passes) for passes in levels)


def _device() -> str:
    import torch

    return torch.cuda.get_device_name(0) if device_name() == "cuda" else cpu_name() or platform.machine()


def _cores(timing: Timing) -> list[str]:
    """Of an engine on a CPU: its threads, and on how many cores they may run."""
    if device_name() == "cuda":
        return []
    usable = len(os.sched_getaffinity(0))
    return [str(timing.settings.threads or os.environ.get("OMP_NUM_THREADS") or usable), str(usable)]

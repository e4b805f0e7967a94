"""Serving figures of several variants side by side: how fast each answers the same requests, interleaved, and what
memory it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.dtypes import BY_NAME
from harness.core.errors import MeasurementError
from harness.core.progress import progress_bar, say
from harness.core.types.engine import EngineFacts
from harness.core.types.serving import ServingResult, ServingRow, SpeedRatio
from harness.engine.devices import device_bytes, device_name
from harness.engine.engine_facts import engine_facts
from harness.engine.engine_settings import engine_settings
from harness.engine.memory_budget import (
    EngineSettings,
    cached_bytes_per_token,
    engine_arguments,
    side_by_side,
    whole_blocks,
    with_kv_cache,
    working_dtype,
)
from harness.engine.vllm_engine import Engines, cache_facts, kv_bytes_per_token
from harness.models.tokenizer import load_tokenizer
from harness.serving import http_client, server
from harness.serving.process_memory import EngineMemory, footprint
from harness.serving.roofline import Device, kv_capacity_tokens
from harness.serving.timing import Pass, Runner, interleaved, offline_round, serving_row, speed_ratios
from harness.serving.vllm_options import allowed_options, count_of, given_options
from harness.serving.workload import Workload, longest
from pruning.checkpoint import ModelFolder

_LEAST_SECONDS = 2.0


@dataclass(frozen=True)
class RunningEngine:
    """A model on an engine, with the KV cache as the engine reports it.

    mode: offline, in this process, or online, vLLM's server over HTTP. kv_blocks, kv_tokens: what the cache holds.
    facts: how it computes.
    """

    model: ModelFolder
    settings: EngineSettings
    mode: str
    kv_bytes_per_token: int
    kv_blocks: int
    kv_tokens: int
    facts: EngineFacts

    @property
    def dtype(self) -> str:
        """The number type in which it computes."""
        return working_dtype(self.model, self.settings.dtype)


@dataclass(frozen=True)
class BenchTarget:
    """One variant that requests can be sent to; `round` sends them once and returns the measurement."""

    round: Runner
    engine: RunningEngine


def bench(
    models: Mapping[str, ModelFolder],
    config: RunConfig,
    workloads: Mapping[str, Workload],
    out: Path,
    over_http: bool,
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    """Times engines or servers of all `models` interleaved, then measures their memory one at a time.

    workloads: The same requests in each model's own vocabulary.
    """
    workloads = {name: replace(workload, least_seconds=_LEAST_SECONDS) for name, workload in workloads.items()}
    workload = next(iter(workloads.values()))
    with (_servers if over_http else _engines)(models, config, workloads, out) as targets:
        passes = interleaved(
            {name: target.round for name, target in targets.items()}, config.concurrency, config.repeats, workload
        )
    memory = {
        name: found for name, model in models.items() if (found := _footprint(name, model, config, workloads[name]))
    }
    return results(targets, passes, config, workload, memory)


def _footprint(name: str, model: ModelFolder, config: RunConfig, workload: Workload) -> EngineMemory | None:
    """Memory of an engine with this model alone; None, with a message, if none can be started."""
    try:
        with progress_bar(f"Measuring the memory of {name}"):
            return footprint(
                model, settings_for({name: model}, config, workload)[name], workload, max(config.concurrency)
            )
    except MeasurementError as error:
        say(f"memory of {name} not measured: {error}")
        return None


def offline_targets(engines: Engines, workloads: Mapping[str, Workload]) -> dict[str, BenchTarget]:
    """Variant -> its engine in this process, started where it does not run yet. workloads: what each is sent."""
    return {
        name: BenchTarget(partial(offline_round, engines[name], workload), offline_engine(engines, name))
        for name, workload in workloads.items()
    }


def offline_engine(engines: Engines, name: str) -> RunningEngine:
    """What the engine of one variant in this process reports."""
    llm = engines[name]
    model, settings = engines.models[name], engines.settings[name]
    return RunningEngine(
        model, settings, "offline", kv_bytes_per_token(llm), *cache_facts(llm), engine_facts(llm, settings.options)
    )


def settings_for(models: Mapping[str, ModelFolder], config: RunConfig, workload: Workload) -> dict[str, EngineSettings]:
    """Without prefix caching, since a round repeats the prompts of the round before."""
    longest = min(
        whole_blocks(workload.context),
        *(model.shape.max_position_embeddings for model in models.values()),
    )
    settings = engine_settings(config, longest, max(config.concurrency), prefix_caching=False)
    return side_by_side(models, {name: with_kv_cache(model, settings) for name, model in models.items()})


@contextmanager
def _engines(
    models: Mapping[str, ModelFolder], config: RunConfig, workloads: Mapping[str, Workload], _out: Path
) -> Iterator[dict[str, BenchTarget]]:
    with Engines(models, settings_for(models, config, longest(workloads))) as engines:
        yield offline_targets(engines, workloads)


@contextmanager
def _servers(
    models: Mapping[str, ModelFolder], config: RunConfig, workloads: Mapping[str, Workload], out: Path
) -> Iterator[dict[str, BenchTarget]]:
    """`vllm serve` on each, asked by vLLM's own client; the requests and the servers' logs are kept in the run
    directory.
    """
    requests, first = out / "requests.jsonl", next(iter(models.values()))
    workload = next(iter(workloads.values()))  # sent as text
    http_client.write_requests(workload, load_tokenizer(first), requests)
    settings = settings_for(models, config, longest(workloads))
    with ExitStack() as stack:
        found = {}
        for name, model in models.items():
            address = server.Address(port=server.free_port())
            with progress_bar(f"Starting vLLM's server on {name}"):
                running = stack.enter_context(
                    server.running(model, name, settings[name], address, out / f"server-{name}.log")
                )
            measure = partial(_online_pass, running, name, model.path, requests, workload)
            found[name] = BenchTarget(measure, online_engine(running, model, settings[name]))
        yield found


def _online_pass(
    running: server.Server, name: str, model: Path, requests: Path, workload: Workload, concurrency: int
) -> Pass:
    line = http_client.arguments(running, name, model, requests, workload, concurrency)
    return http_client.online_round(running, line)


def online_engine(
    running: server.Server, model: ModelFolder, settings: EngineSettings, extra: Sequence[str] = ()
) -> RunningEngine:
    """What a server was told and reports. It does not publish the bytes of a token, which are by formula, nor what its
    log alone says (model runner, attention, graphs, scheduling). extra: vLLM's own options that it was started with.
    """
    more, cache = given_options(allowed_options(extra)), server.published_cache(running)
    told = {**engine_arguments(model, settings), **more}
    per_token = cached_bytes_per_token(model, settings.dtype, settings.tensor_parallel)
    if cache["cache_dtype"].startswith("fp8"):
        per_token //= BY_NAME[working_dtype(model, settings.dtype)].item_bytes
    facts = EngineFacts(
        dtype=working_dtype(model, settings.dtype),
        kv_cache_dtype=cache["cache_dtype"],
        enforce_eager=bool(told["enforce_eager"]),
        max_num_batched_tokens=count_of(told["max_num_batched_tokens"]),
        max_num_seqs=count_of(told["max_num_seqs"]),
        block_size=int(cache["block_size"]),
        tensor_parallel=settings.tensor_parallel,
        options={**settings.options, **more},
    )
    blocks, tokens = int(cache["num_gpu_blocks"]), int(cache["kv_cache_size_tokens"])
    return RunningEngine(model, settings, "online", per_token, blocks, tokens, facts)


def results(
    targets: Mapping[str, BenchTarget],
    passes: Mapping[str, Sequence[Sequence[Pass]]],
    config: RunConfig,
    workload: Workload,
    memory: Mapping[str, EngineMemory] = {},
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    """Each variant's figures, and the speed of every one over the first's.

    Args:
        targets: variant -> where it was measured, the baseline first.
        passes: variant -> for each concurrency of `config`, its timed passes.
        config: concurrency and repeats.
        workload: the requests that were sent.
        memory: variant -> the memory of an engine on it alone, where that was measured.
    """
    found = {}
    for name, target in targets.items():
        rows = tuple(serving_row(*of_level) for of_level in zip(config.concurrency, passes[name], strict=True))
        found[name] = serving_result(target.engine, rows, workload, memory.get(name))
    shapes = {name: target.engine.model.shape for name, target in targets.items()}
    number = BY_NAME[next(iter(found.values())).dtype].item_bytes
    return found, speed_ratios({name: result.concurrency for name, result in found.items()}, shapes, workload, number)


def serving_result(
    engine: RunningEngine, rows: tuple[ServingRow, ...], workload: Workload, memory: EngineMemory | None = None
) -> ServingResult:
    """One variant's figures, beside what formulas forecast of its memory; they do not know vLLM's own options."""
    return ServingResult(
        concurrency=rows,
        weight_bytes=engine.model.weight_bytes,
        kv_bytes_per_token=engine.kv_bytes_per_token,
        kv_capacity_tokens=engine.kv_tokens,
        device=device_name(),
        dtype=engine.dtype,
        output_tokens=workload.output_tokens,
        kv_blocks=engine.kv_blocks,
        mode=engine.mode,
        prompts=workload.name,
        stop_at_eos=workload.stop_at_eos,
        context_tokens=whole_blocks(workload.context) if workload.prompts else None,
        forecast={} if engine.settings.options else _forecast(engine.model, engine.settings),
        engine=engine.facts,
        **(asdict(memory) if memory else {}),
    )


def _forecast(model: ModelFolder, settings: EngineSettings) -> dict[str, int]:
    """By formula from the config; of a model without some of its neurons or entries of its vocabulary, the dense one's
    parameters less theirs.
    """
    shape, record, parameters = model.shape, model.record, model.parameters
    if record and not any("structure" in step for step in record.get("steps") or ()):
        dense = replace(
            shape, parameters=record["dense_parameters"], intermediate_size=record["dense_intermediate_size"]
        )
        trimmed = [step["vocabulary"] for step in record.get("steps") or () if step.get("vocabulary")]
        rows = sum(before - after for before, after in trimmed)
        parameters = dense.pruned_parameters(model.widths) - rows * shape.hidden_size * (1 if shape.tied else 2)
    parallel, cache = settings.tensor_parallel, settings.kv_cache_bytes
    per_token = cached_bytes_per_token(model, settings.dtype, parallel)
    if cache:
        capacity = cache // per_token
    else:
        held = replace(shape, dtype_bytes=BY_NAME[working_dtype(model, settings.dtype)].item_bytes)
        capacity = kv_capacity_tokens(held, Device("this one", device_bytes(), count=parallel))
    return {
        "weight_bytes": parameters * shape.dtype_bytes,
        "kv_bytes_per_token": per_token,
        "kv_capacity_tokens": capacity,
    }

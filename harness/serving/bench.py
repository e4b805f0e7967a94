"""Serving figures of several variants side by side: how fast each answers the same requests, in turns, and what memory
it takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from harness.config.settings import RunConfig
from harness.core.dtypes import BY_NAME
from harness.core.errors import MeasurementError
from harness.core.progress import progress_bar, say
from harness.core.types.serving import ServingResult, ServingRow, SpeedRatio
from harness.engine import vllm_engine
from harness.engine.vllm_engine import EngineConfig, Engines
from harness.models.tokenizer import load_tokenizer
from harness.serving import http_client, server
from harness.serving.process_memory import EngineMemory, footprint
from harness.serving.roofline import Device, kv_capacity_tokens
from harness.serving.timing import Pass, Runner, interleaved, offline_round, serving_row, speed_ratios
from harness.serving.workload import Workload
from pruning.checkpoint import ModelFolder

_LEAST_SECONDS = 2.0


@dataclass(frozen=True)
class Cache:
    """A KV cache as it is, and the bytes that it was given; None where the engine took what it found."""

    kv_bytes_per_token: int
    blocks: int
    tokens: int
    given_bytes: int | None


@dataclass(frozen=True)
class BenchTarget:
    """One variant that can be asked."""

    round: Runner
    cache: Cache


def bench(
    models: Mapping[str, ModelFolder], config: RunConfig, workload: Workload, out: Path, over_http: bool
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    """Engines or servers of all `models` at once, and their memory one after the other."""
    workload = replace(workload, least_seconds=_LEAST_SECONDS)
    with (_servers if over_http else _engines)(models, config, workload, out) as targets:
        passes = interleaved(
            {name: subject.round for name, subject in targets.items()}, config.concurrency, config.repeats, workload
        )
    memory = {name: found for name, model in models.items() if (found := _footprint(name, model, config, workload))}
    return results(models, targets, passes, config, workload, "online" if over_http else "offline", memory)


def _footprint(name: str, model: ModelFolder, config: RunConfig, workload: Workload) -> EngineMemory | None:
    """None, with a word on it, where an engine of its own cannot be had: what was measured before is worth keeping."""
    try:
        with progress_bar(f"Measuring the memory of {name}"):
            return footprint(
                model, settings_for({name: model}, config, workload)[name], workload, max(config.concurrency)
            )
    except MeasurementError as error:
        say(f"memory of {name} not measured: {error}")
        return None


def offline_targets(engines: Engines, names: Iterable[str], workload: Workload) -> dict[str, BenchTarget]:
    """Engines of this process, to be timed on the requests of `workload`."""
    targets = {}
    for name in names:
        llm, given = engines[name], engines.configs[name].kv_cache_bytes
        blocks, tokens = vllm_engine.cache_facts(llm)
        cache = Cache(vllm_engine.kv_bytes_per_token(llm), blocks, tokens, given)
        targets[name] = BenchTarget(partial(offline_round, llm, workload), cache)
    return targets


def settings_for(models: Mapping[str, ModelFolder], config: RunConfig, workload: Workload) -> dict[str, EngineConfig]:
    """Without a prefix cache: a round repeats the prompts of the one before."""
    longest = min(
        vllm_engine.whole_blocks(workload.context),
        *(model.shape.max_position_embeddings for model in models.values()),
    )
    wanted = {
        name: vllm_engine.config_for(
            model, config.dtype, config.threads, longest, max(config.concurrency), False, config.sweep.tensor_parallel
        )
        for name, model in models.items()
    }
    return vllm_engine.side_by_side(models, wanted)


@contextmanager
def _engines(
    models: Mapping[str, ModelFolder], config: RunConfig, workload: Workload, _out: Path
) -> Iterator[dict[str, BenchTarget]]:
    with Engines(models, settings_for(models, config, workload), workload.context) as engines:
        yield offline_targets(engines, models, workload)


@contextmanager
def _servers(
    models: Mapping[str, ModelFolder], config: RunConfig, workload: Workload, out: Path
) -> Iterator[dict[str, BenchTarget]]:
    """`vllm serve` on each, asked by vLLM's own client; the requests and the servers' logs are kept in the run
    directory.
    """
    requests, first = out / "requests.jsonl", next(iter(models.values()))
    http_client.write_requests(workload, load_tokenizer(first.path), requests)
    settings = settings_for(models, config, workload)
    with ExitStack() as stack:
        found = {}
        for name, model in models.items():
            address = server.Address(port=server.free_port())
            with progress_bar(f"Starting vLLM's server on {name}"):
                running = stack.enter_context(
                    server.running(model, name, settings[name], address, out / f"server-{name}.log")
                )
            found[name] = _served(running, name, model, settings[name], workload, requests)
        yield found


def _served(
    running: server.Server, name: str, model: ModelFolder, settings: EngineConfig, workload: Workload, requests: Path
) -> BenchTarget:
    def ask(level: int) -> Pass:
        return http_client.online_round(
            running, http_client.arguments(running, name, model.path, requests, workload, level)
        )

    return BenchTarget(ask, cache_of(running, model, settings))


def cache_of(running: server.Server, model: ModelFolder, settings: EngineConfig) -> Cache:
    """A server does not publish the bytes of a token: they are by formula."""
    return Cache(
        vllm_engine.cached_bytes_per_token(model, settings.dtype), *server.cache_facts(running), settings.kv_cache_bytes
    )


def results(
    models: Mapping[str, ModelFolder],
    targets: Mapping[str, BenchTarget],
    passes: Mapping[str, Sequence[Sequence[Pass]]],
    config: RunConfig,
    workload: Workload,
    mode: str,
    memory: Mapping[str, EngineMemory] = {},
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    """Each variant's figures, and every one's speed over the first's."""
    found = {}
    for name, model in models.items():
        rows = tuple(serving_row(*of_level) for of_level in zip(config.concurrency, passes[name], strict=True))
        found[name] = serving_result(model, config.dtype, targets[name].cache, rows, workload, mode, memory.get(name))
    shapes = {name: model.shape for name, model in models.items()}
    number = BY_NAME[next(iter(found.values())).dtype].item_bytes
    return found, speed_ratios({name: result.concurrency for name, result in found.items()}, shapes, workload, number)


def serving_result(
    model: ModelFolder,
    dtype: str,
    cache: Cache,
    rows: tuple[ServingRow, ...],
    workload: Workload,
    mode: str,
    memory: EngineMemory | None = None,
) -> ServingResult:
    return ServingResult(
        concurrency=rows,
        weight_bytes=model.weight_bytes,
        kv_bytes_per_token=cache.kv_bytes_per_token,
        kv_capacity_tokens=cache.tokens,
        device=vllm_engine.device_name(),
        dtype=vllm_engine.working_dtype(model, dtype),
        output_tokens=workload.output_tokens,
        kv_blocks=cache.blocks,
        mode=mode,
        prompts=workload.name,
        stop_at_eos=workload.stop_at_eos,
        context_tokens=vllm_engine.whole_blocks(workload.context) if workload.prompts else None,
        forecast=_forecast(model, dtype, cache.given_bytes),
        **(asdict(memory) if memory else {}),
    )


def _forecast(model: ModelFolder, dtype: str, cache_bytes: int | None) -> dict[str, int]:
    """From the configs alone: of a pruned model, the parameters that removing neurons from the dense one leaves by
    formula.
    """
    shape, record, parameters = model.shape, model.record, model.parameters
    if record:
        dense = replace(
            shape, parameters=record["dense_parameters"], intermediate_size=record["dense_intermediate_size"]
        )
        parameters = dense.pruned_parameters(model.widths)
    per_token = vllm_engine.cached_bytes_per_token(model, dtype)
    capacity = (
        cache_bytes // per_token
        if cache_bytes
        else kv_capacity_tokens(shape, Device("this one", vllm_engine.device_bytes()))
    )
    return {
        "weight_bytes": parameters * shape.dtype_bytes,
        "kv_bytes_per_token": per_token,
        "kv_capacity_tokens": capacity,
    }

"""Serving figures of several variants side by side: how fast each answers the same requests, in turns, and what memory it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness import engine, online, scoring, server
from harness.capacity import Device, kv_capacity_tokens
from harness.config import RunConfig
from harness.engine import EngineConfig, Engines
from harness.errors import UsageError
from harness.footprint import Footprint, footprint
from harness.progress import stage
from harness.serving import Pass, Runner, Workload, in_turns, offline_round, random_prompts, serving_row, speed_ratios
from harness.types import ModelShape, ServingResult, ServingRow, SpeedRatio
from pruning.checkpoint import describe, read_config, read_record
from pruning.families import shape_of
from tasks.registry import Task

_LEAST_SECONDS = 2.0
_UNCACHED = ("--no-enable-prefix-caching",)  # a pass repeats the prompts of the one before


@dataclass(frozen=True)
class Cache:
    """A KV cache as it is, and the bytes that it was given; None where the engine took what it found."""

    kv_bytes_per_token: int
    blocks: int
    block_tokens: int
    given_bytes: int | None


@dataclass(frozen=True)
class Subject:
    """One variant that can be asked."""

    round: Runner
    cache: Cache


def make_workload(config: RunConfig, model: Path, task: Task) -> Workload:
    """The task's own prompts, or random ones where their length is given; as many as go on at a time."""
    count = max(*config.concurrency, config.requests or 0, 4)
    length = {"output_tokens": config.output_tokens, "natural": config.natural, "requests": config.requests}
    if config.input_tokens:
        prompts = random_prompts(count, config.input_tokens, shape_of(read_config(model)).vocab_size)
        least, most = min(map(len, prompts)), max(map(len, prompts))
        return Workload(f"random, {least} to {most} tokens", prompts, **length)
    return Workload(task.name, tuple(map(tuple, scoring.task_prompts(model, task, count))), **length)


def need_context(model: Path, workload: Workload) -> None:
    """Raises UsageError where prompts and answers are longer than the model can take."""
    most = _shape(model).max_position_embeddings
    if context_needed(workload) > most:
        raise UsageError(
            f"prompts and answers take up to {context_needed(workload)} tokens and the context of {model} is {most}; "
            "give a smaller --output-tokens or --input-tokens"
        )


def context_needed(workload: Workload) -> int:
    return max(map(len, workload.prompts)) + workload.output_tokens + 1


def bench(
    models: Mapping[str, Path], config: RunConfig, workload: Workload, out: Path, over_http: bool
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:  # fmt: skip
    """Engines or servers of all `models` at once, and their memory one after the other."""
    workload = replace(workload, least_seconds=_LEAST_SECONDS)
    with (_servers if over_http else _engines)(models, config, workload, out) as subjects:
        passes = in_turns({name: subject.round for name, subject in subjects.items()}, config.concurrency, config.repeats, workload)
    memory = {}
    for name, path in models.items():
        with stage(f"Measuring the memory of {name}"):
            memory[name] = footprint(path, _settings(path, config, workload), workload, max(config.concurrency))
    return results(models, subjects, passes, config, workload, "online" if over_http else "offline", memory)


def offline_subjects(engines: Engines, names: Iterable[str], workload: Workload) -> dict[str, Subject]:
    return {name: _subject(engines[name], workload, engines.config(name)) for name in names}


def _subject(llm: Any, workload: Workload, config: EngineConfig) -> Subject:
    cache = Cache(engine.kv_bytes_per_token(llm), *engine.cache_facts(llm), config.kv_cache_bytes)
    return Subject(lambda level: offline_round(llm, workload, level), cache)


def _settings(path: Path, config: RunConfig, workload: Workload) -> EngineConfig:
    return engine.config_for(path, config.dtype, config.threads, context_needed(workload), max(config.concurrency))


@contextmanager
def _engines(models: Mapping[str, Path], config: RunConfig, workload: Workload, _out: Path) -> Iterator[dict[str, Subject]]:
    with Engines(models, config.dtype, config.threads, context_needed(workload), max(config.concurrency)) as engines:
        yield offline_subjects(engines, models, workload)


@contextmanager
def _servers(models: Mapping[str, Path], config: RunConfig, workload: Workload, out: Path) -> Iterator[dict[str, Subject]]:
    """`vllm serve` on each, asked by vLLM's own client; the requests and the servers' logs are kept in the run directory."""
    requests, first = out / "requests.jsonl", next(iter(models.values()))
    online.write_requests(workload, scoring.load_tokenizer(first), requests)
    with ExitStack() as stack:
        found = {}
        for name, path in models.items():
            address, settings = server.Address(port=server.free_port()), _settings(path, config, workload)
            with stage(f"Starting vLLM's server on {name}"):
                running = server.running(path, name, settings, address, out / f"server-{name}.log", _UNCACHED)
                found[name] = _served(stack.enter_context(running), name, path, settings, workload, requests)
        yield found


def _served(running: server.Server, name: str, path: Path, settings: EngineConfig, workload: Workload, requests: Path) -> Subject:
    def ask(level: int) -> Pass:
        return online.online_round(running, online.arguments(running, name, path, requests, workload, level))

    return Subject(ask, cache_of(running, path, settings))


def cache_of(running: server.Server, path: Path, settings: EngineConfig) -> Cache:
    """A server does not publish the bytes of a token: they are by formula."""
    return Cache(engine.cached_bytes_per_token(path, settings.dtype), *server.cache_facts(running), settings.kv_cache_bytes)


def results(
    models: Mapping[str, Path],
    subjects: Mapping[str, Subject],
    passes: Mapping[str, Sequence[Sequence[Pass]]],
    config: RunConfig,
    workload: Workload,
    mode: str,
    memory: Mapping[str, Footprint] = {},
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:
    """Each variant's figures, and every one's speed over the first's."""
    found = {}
    for name, path in models.items():
        rows = tuple(serving_row(*of_level) for of_level in zip(config.concurrency, passes[name], strict=True))
        found[name] = serving_result(path, config.dtype, subjects[name].cache, rows, workload, mode, memory.get(name))
    shapes = {name: _shape(path) for name, path in models.items()}
    number = engine.NUMBER_BYTES[next(iter(found.values())).dtype]
    return found, speed_ratios({name: result.concurrency for name, result in found.items()}, shapes, workload, number)


def serving_result(
    path: Path, dtype: str, cache: Cache, rows: tuple[ServingRow, ...], workload: Workload, mode: str, memory: Footprint | None = None
) -> ServingResult:  # fmt: skip
    return ServingResult(
        concurrency=rows, weight_bytes=describe(path).weight_bytes, kv_bytes_per_token=cache.kv_bytes_per_token,
        kv_capacity_tokens=cache.blocks * cache.block_tokens, device=engine.device_name(), dtype=engine.working_dtype(path, dtype),
        output_tokens=workload.output_tokens, kv_blocks=cache.blocks, mode=mode, prompts=workload.name, natural=workload.natural,
        forecast=_forecast(path, dtype, cache.given_bytes), **(asdict(memory) if memory else {}),
    )  # fmt: skip


def _shape(path: Path) -> ModelShape:
    return shape_of(read_config(path), describe(path).parameters)


def _forecast(path: Path, dtype: str, cache_bytes: int | None) -> dict[str, int]:
    """From the configs alone: of a pruned model, the parameters that removing neurons from the dense one leaves by formula."""
    made, shape, record = describe(path), _shape(path), read_record(path)
    parameters = made.parameters
    if record:
        dense = replace(shape, parameters=record["dense_parameters"], intermediate_size=record["dense_intermediate_size"])
        parameters = dense.pruned_parameters(made.intermediate_sizes)
    per_token = engine.cached_bytes_per_token(path, dtype)
    capacity = cache_bytes // per_token if cache_bytes else kv_capacity_tokens(shape, Device("this one", engine.device_bytes()))
    return {"weight_bytes": parameters * shape.dtype_bytes, "kv_bytes_per_token": per_token, "kv_capacity_tokens": capacity}

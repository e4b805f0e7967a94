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
from harness.errors import MeasurementError, UsageError
from harness.footprint import Footprint, footprint
from harness.progress import say, stage
from harness.serving import Pass, Runner, Workload, in_turns, offline_round, random_prompts, serving_row, speed_ratios
from harness.serving_types import NUMBER_BYTES, ServingResult, ServingRow, SpeedRatio
from harness.types import ModelShape
from pruning.checkpoint import describe, read_config, read_record
from pruning.families import shape_of
from tasks.registry import Task

_LEAST_SECONDS = 2.0
_TRIES = 5


@dataclass(frozen=True)
class Cache:
    """A KV cache as it is, and the bytes that it was given; None where the engine took what it found."""

    kv_bytes_per_token: int
    blocks: int
    tokens: int
    given_bytes: int | None


@dataclass(frozen=True)
class Subject:
    """One variant that can be asked."""

    round: Runner
    cache: Cache


def make_workload(config: RunConfig, model: Path, task: Task) -> Workload:
    """The task's own prompts, or random ones where their length is given; as many as go on at a time."""
    count = max(*config.concurrency, config.requests or 0, 4)
    length = (config.output_tokens, config.natural, config.requests)
    if not config.input_tokens:
        return Workload(task.name, tuple(map(tuple, scoring.task_prompts(model, task, count))), *length)
    tokenizer = scoring.load_tokenizer(model)
    drawn = random_prompts(count, config.input_tokens, shape_of(read_config(model)).vocab_size)
    prompts = tuple(_as_text(tokenizer, prompt) for prompt in drawn)
    return Workload(f"random, {min(map(len, prompts))} to {max(map(len, prompts))} tokens", prompts, *length)


def _as_text(tokenizer: Any, prompt: tuple[int, ...]) -> tuple[int, ...]:
    """Tokens that a server which is sent their text sees again, as few as the prompt has or less."""
    for _ in range(_TRIES):
        again = tuple(tokenizer.encode(tokenizer.decode(list(prompt)), add_special_tokens=False))[: len(prompt)]
        if again == prompt:
            break
        prompt = again
    return prompt


def need_context(model: Path, workload: Workload) -> None:
    """Raises UsageError where prompts and answers are longer than the model can take, or made for another vocabulary."""
    shape = _shape(model)
    if workload.context > shape.max_position_embeddings:
        raise UsageError(
            f"prompts and answers take up to {workload.context} tokens and the context of {model} is {shape.max_position_embeddings}; "
            "give a smaller --output-tokens or --input-tokens"
        )
    if max(map(max, workload.prompts)) >= shape.vocab_size:
        raise UsageError(f"{model} has another vocabulary than the first model; the same requests cannot be put to both")


def bench(
    models: Mapping[str, Path], config: RunConfig, workload: Workload, out: Path, over_http: bool
) -> tuple[dict[str, ServingResult], list[SpeedRatio]]:  # fmt: skip
    """Engines or servers of all `models` at once, and their memory one after the other."""
    workload = replace(workload, least_seconds=_LEAST_SECONDS)
    with (_servers if over_http else _engines)(models, config, workload, out) as subjects:
        passes = in_turns({name: subject.round for name, subject in subjects.items()}, config.concurrency, config.repeats, workload)
    memory = {name: found for name, path in models.items() if (found := _footprint(name, path, config, workload))}
    return results(models, subjects, passes, config, workload, "online" if over_http else "offline", memory)


def _footprint(name: str, path: Path, config: RunConfig, workload: Workload) -> Footprint | None:
    """None, with a word on it, where an engine of its own cannot be had: what was measured before is worth keeping."""
    try:
        with stage(f"Measuring the memory of {name}"):
            return footprint(path, settings_for({name: path}, config, workload)[name], workload, max(config.concurrency))
    except MeasurementError as error:
        say(f"memory of {name} not measured: {error}")
        return None


def offline_subjects(engines: Engines, names: Iterable[str], workload: Workload) -> dict[str, Subject]:
    return {name: _subject(engines[name], workload, engines.configs[name]) for name in names}


def _subject(llm: Any, workload: Workload, config: EngineConfig) -> Subject:
    return Subject(lambda level: offline_round(llm, workload, level), offline_cache(llm, config))


def offline_cache(llm: Any, config: EngineConfig) -> Cache:
    return Cache(engine.kv_bytes_per_token(llm), *engine.cache_facts(llm), config.kv_cache_bytes)


def settings_for(models: Mapping[str, Path], config: RunConfig, workload: Workload) -> dict[str, EngineConfig]:
    """Without a prefix cache: a round repeats the prompts of the one before."""
    longest = min(engine.whole_blocks(workload.context), *(_shape(path).max_position_embeddings for path in models.values()))
    wanted = {
        name: engine.config_for(
            path, config.dtype, config.threads, longest, max(config.concurrency), False, config.sweep.tensor_parallel
        )
        for name, path in models.items()
    }  # fmt: skip
    return engine.side_by_side(models, wanted)


@contextmanager
def _engines(models: Mapping[str, Path], config: RunConfig, workload: Workload, _out: Path) -> Iterator[dict[str, Subject]]:
    with Engines(models, settings_for(models, config, workload), workload.context) as engines:
        yield offline_subjects(engines, models, workload)


@contextmanager
def _servers(models: Mapping[str, Path], config: RunConfig, workload: Workload, out: Path) -> Iterator[dict[str, Subject]]:
    """`vllm serve` on each, asked by vLLM's own client; the requests and the servers' logs are kept in the run directory."""
    requests, first = out / "requests.jsonl", next(iter(models.values()))
    online.write_requests(workload, scoring.load_tokenizer(first), requests)
    settings = settings_for(models, config, workload)
    with ExitStack() as stack:
        found = {}
        for name, path in models.items():
            address = server.Address(port=server.free_port())
            with stage(f"Starting vLLM's server on {name}"):
                running = stack.enter_context(server.running(path, name, settings[name], address, out / f"server-{name}.log"))
            found[name] = _served(running, name, path, settings[name], workload, requests)
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
    number = NUMBER_BYTES[next(iter(found.values())).dtype]
    return found, speed_ratios({name: result.concurrency for name, result in found.items()}, shapes, workload, number)


def serving_result(
    path: Path, dtype: str, cache: Cache, rows: tuple[ServingRow, ...], workload: Workload, mode: str, memory: Footprint | None = None
) -> ServingResult:  # fmt: skip
    return ServingResult(
        concurrency=rows, weight_bytes=describe(path).weight_bytes, kv_bytes_per_token=cache.kv_bytes_per_token,
        kv_capacity_tokens=cache.tokens, device=engine.device_name(), dtype=engine.working_dtype(path, dtype),
        output_tokens=workload.output_tokens, kv_blocks=cache.blocks, mode=mode, prompts=workload.name, natural=workload.natural,
        context_tokens=engine.whole_blocks(workload.context) if workload.prompts else None,
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

"""How fast several variants answer the same requests, interleaved: the passes, in the engine of this process, and their
figures.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import MeasurementError
from harness.core.progress import progress_bar
from harness.core.statistics import paired_ratio, percentiles
from harness.core.types.pruning import ModelShape
from harness.core.types.serving import ServingRow, SpeedRatio
from harness.engine.devices import device_name
from harness.engine.vllm_engine import empty_prefix_cache, refusals
from harness.serving.roofline import ideal_speedup, round_work
from harness.serving.workload import Workload

_MOST_ROUNDS = 100
Runner = Callable[[int], "Pass"]  # concurrency -> what one round of the requests took


@dataclass
class Pass:
    """One or more timed rounds of requests: seconds by the clock and of CPU, tokens of the prompts and of each answer,
    latencies in ms.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    input_tokens: int = 0
    answers: list[int] = field(default_factory=list)
    ttft_ms: list[float] = field(default_factory=list)
    tpot_ms: list[float] = field(default_factory=list)
    itl_ms: list[float] = field(default_factory=list)

    def add(self, prompt_tokens: int, arrived: float, moments: Sequence[float], tokens: int) -> None:
        """One answer: when its request arrived and when something came, in seconds."""
        self.input_tokens += prompt_tokens
        self.answers.append(tokens)
        self.ttft_ms.append((moments[0] - arrived) * 1e3)
        self.itl_ms += [(later - sooner) * 1e3 for sooner, later in itertools.pairwise(moments)]
        if tokens > 1:
            self.tpot_ms.append((moments[-1] - moments[0]) / (tokens - 1) * 1e3)

    def __iadd__(self, other: Pass) -> Pass:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def offline_round(llm: Any, workload: Workload, concurrency: int) -> Pass:
    """`concurrency` requests in flight until all are answered, a new one for each that ends; the prefix cache starts
    empty.
    """
    engine, found = llm.llm_engine, Pass()
    waiting = deque(enumerate(workload.requests_for(concurrency)))
    flying: dict[str, _Flight] = {}
    empty_prefix_cache(llm)
    started, cpu = time.perf_counter(), time.process_time()
    with refusals(llm):
        while waiting or flying:
            while waiting and len(flying) < concurrency:
                number, prompt = waiting.popleft()
                flying[f"bench-{number}"] = _Flight(len(prompt), time.perf_counter())
                engine.add_request(f"bench-{number}", {"prompt_token_ids": list(prompt)}, _parameters(workload))
            for output in engine.step():
                flight = flying[output.request_id]
                flight.tokens += len(output.outputs[0].token_ids)
                flight.moments.append(time.perf_counter())
                if output.finished:
                    found.add(flight.prompt_tokens, flight.arrived, flight.moments, flight.tokens)
                    del flying[output.request_id]
    found.seconds, found.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
    return found


@dataclass
class _Flight:
    prompt_tokens: int
    arrived: float
    tokens: int = 0
    moments: list[float] = field(default_factory=list)


def _parameters(workload: Workload) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    kind = RequestOutputKind.DELTA
    return SamplingParams(
        temperature=0.0, max_tokens=workload.output_tokens, ignore_eos=not workload.stop_at_eos, output_kind=kind
    )


def interleaved(
    runners: Mapping[str, Runner], concurrency: Sequence[int], repeats: int, workload: Workload
) -> dict[str, list[list[Pass]]]:
    """name -> for each concurrency its passes. Warms every variant up, then A B, B A, A B and so on, so that drift hits
    all alike.

    Raises MeasurementError where answers of a fixed length are shorter.
    """
    found: dict[str, list[list[Pass]]] = {name: [] for name in runners}
    with progress_bar(
        f"Measuring {', '.join(runners)} interleaved", len(concurrency) * len(runners) * repeats
    ) as advance:
        for level in concurrency:
            for runner in runners.values():
                runner(level)
            warm = next(iter(runners.values()))(level).seconds  # the second: the first one is slow
            rounds = min(_MOST_ROUNDS, max(1, math.ceil(workload.least_seconds / warm)))
            passes: dict[str, list[Pass]] = {name: [] for name in runners}
            for repeat in range(repeats):
                for name in list(runners)[:: -1 if repeat % 2 else 1]:
                    passes[name].append(_pass(runners[name], level, rounds, workload))
                    advance(1)
            for name, done in passes.items():
                found[name].append(done)
    return found


def _pass(runner: Runner, concurrency: int, rounds: int, workload: Workload) -> Pass:
    found = Pass()
    for _ in range(rounds):
        found += runner(concurrency)
    if not workload.stop_at_eos and set(found.answers) != {workload.output_tokens}:
        raise MeasurementError(
            f"the engine gave answers of {min(found.answers)} tokens instead of "
            f"{workload.output_tokens}; give a smaller --output-tokens"
        )
    return found


_QUANTITIES: Mapping[str, Callable[[Pass], float]] = {
    "output_tok_s": lambda p: sum(p.answers) / p.seconds,
    "output_tok_cpu_s": lambda p: sum(p.answers) / p.cpu_seconds,
    "answers_s": lambda p: len(p.answers) / p.seconds,
}


def serving_row(concurrency: int, passes: Sequence[Pass]) -> ServingRow:
    """Medians over the passes; without CPU time on CUDA, where a thread that waits for the GPU counts as busy."""
    rates = {name: tuple(map(rate, passes)) for name, rate in _QUANTITIES.items()}
    by_cpu = rates["output_tok_cpu_s"] if device_name() == "cpu" else ()
    speed = statistics.median(rates["output_tok_s"])
    answers = [tokens for p in passes for tokens in p.answers]
    ttft, tpot, itl = (
        [value for p in passes for value in getattr(p, name)] for name in ("ttft_ms", "tpot_ms", "itl_ms")
    )
    return ServingRow(
        concurrency=concurrency,
        output_tok_s=speed,
        output_tok_s_repeats=rates["output_tok_s"],
        ttft_ms=percentiles(ttft),
        tpot_ms=percentiles(tpot),
        repeats=len(passes),
        itl_ms=percentiles(itl),
        total_tok_s=statistics.median((p.input_tokens + sum(p.answers)) / p.seconds for p in passes),
        output_tok_cpu_s=statistics.median(by_cpu) if by_cpu else None,
        output_tok_cpu_s_repeats=by_cpu,
        answers_s_repeats=rates["answers_s"],
        requests=len(passes[0].answers),
        tokens_per_answer=statistics.fmean(answers),
        spread=(max(rates["output_tok_s"]) - min(rates["output_tok_s"])) / speed,
    )


def speed_ratios(
    rows: Mapping[str, Sequence[ServingRow]], shapes: Mapping[str, ModelShape], workload: Workload, number: int
) -> list[SpeedRatio]:
    """Every variant over the first, pair by pair. `number`: bytes of a number at work."""
    (base, before), *others = rows.items()
    quantities = [name for name in _QUANTITIES if workload.stop_at_eos or name != "answers_s"]
    found = []
    for name, after in others:
        for old, new in zip(before, after, strict=True):
            tokens = round(old.tokens_per_answer or workload.output_tokens)
            work = (
                round_work(shapes[each], old.concurrency, workload.prompt_tokens, tokens, number)
                for each in (base, name)
            )
            ideal_flops, ideal_bytes = ideal_speedup(*work)
            for quantity in quantities:
                passes = [getattr(row, f"{quantity}_repeats") for row in (old, new)]
                if not all(passes):
                    continue
                ratio, low, high = paired_ratio(*passes)
                found.append(
                    SpeedRatio(
                        variant=name,
                        baseline=base,
                        concurrency=old.concurrency,
                        quantity=quantity,
                        pairs=old.repeats,
                        ratio=ratio,
                        ci_low=low,
                        ci_high=high,
                        ideal_flops=ideal_flops,
                        ideal_bytes=ideal_bytes,
                        baseline_passes=passes[0],
                        variant_passes=passes[1],
                    )
                )
    return found

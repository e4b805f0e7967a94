"""Evaluation's tokens per second beside a bare LLM.generate on the same prompts, on one engine, interleaved, grading
included.

python benchmarks/evaluation.py --model smollm2-135m --task gsm8k_boxed --limit 64
Aim: at least 0.95 of the bare engine.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from harness.engine import lm_eval_model
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_samples
from harness.models import registry
from harness.models.tokenizer import load_chat
from harness.pipeline.run_context import context_length
from tasks.registry import find_task


@dataclass
class Both:
    """Evaluation and the bare engine on one engine, each timed in seconds.

    Attributes:
        asked: Prompts and sampling parameters of the last evaluation, for the bare engine.
        generating: Seconds that the last evaluation spent in the engine.
    """

    llm: Any
    spec: EvalSpec
    fingerprint: str
    folder: Path
    asked: tuple[Any, ...] = ()
    generating: float = 0.0

    def evaluated(self, number: int) -> tuple[float, int]:
        """(seconds, tokens) of an evaluation."""
        started = time.perf_counter()
        self.llm.reset_prefix_cache()
        run, task = self.folder / str(number), self.spec.tasks[0].name
        with remembering(self):
            found = evaluate(self.llm, self.spec, VariantEval(run, "it", self.fingerprint))[task]
        seconds = time.perf_counter() - started
        return seconds, sum(row["n_tokens"] for row in read_samples(run / found.samples).values())

    def bare(self) -> tuple[float, int]:
        """(seconds, tokens) of the bare engine on the very same prompts."""
        self.llm.reset_prefix_cache()
        started = time.perf_counter()
        outputs = self.llm.generate(*self.asked, use_tqdm=False)
        return time.perf_counter() - started, sum(len(output.outputs[0].token_ids) for output in outputs)


@contextmanager
def remembering(both: Both) -> Iterator[None]:
    """What the evaluation asks the engine, and how long that takes, goes into `both`."""
    real = vars(lm_eval_model)["stream"]

    def remembered(llm: Any, prompts: Any, params: Any) -> Any:
        both.asked = (prompts, params)
        started = time.perf_counter()
        yield from real(llm, prompts, params)
        both.generating = time.perf_counter() - started

    vars(lm_eval_model)["stream"] = remembered
    try:
        yield
    finally:
        vars(lm_eval_model)["stream"] = real


def measured(both: Both, repeats: int) -> tuple[list[tuple[float, float, float]], int]:
    """Tokens per second of the evaluation, of the bare engine and of the evaluation's generation, in each round; and
    the tokens of a round.
    """
    both.evaluated(-1)  # loads the data set and starts the sandboxes
    rounds: list[tuple[float, float, float]] = []
    tokens = 0
    for number in range(repeats):
        (ours, tokens), (theirs, same) = both.evaluated(number), both.bare()
        assert tokens == same, f"{tokens} tokens, and {same} from the bare engine"
        rounds.append((tokens / ours, same / theirs, tokens / both.generating))
    return rounds, tokens


@click.command()
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--task", default="gsm8k_boxed", show_default=True)
@click.option("--limit", default=64, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(model: str, task: str, limit: int, repeats: int, threads: int) -> None:
    prepare_environment(threads)
    row = find_task(task)
    path = registry.locate(model, row.kind)
    context = context_length(path, [row])
    spec = EvalSpec(model, (row,), context, chat=load_chat(path, {})[1], limit=limit)
    settings = EngineSettings(max_model_len=context, threads=threads)
    with tempfile.TemporaryDirectory() as name, engines_for({"it": path}, settings) as engines:
        rounds, tokens = measured(Both(engines["it"], spec, path.fingerprint, Path(name)), repeats)
    ratios = sorted(a / b for a, b, _ in rounds)
    names, columns = ("evaluation", "bare", "its generation"), zip(*rounds, strict=True)
    speeds = {name: round(statistics.median(column), 1) for name, column in zip(names, columns, strict=True)}
    found = {"model": model, "task": task, "n": limit, "tokens": tokens, "tok_s": speeds}
    click.echo(
        json.dumps({**found, "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in ratios]})
    )


if __name__ == "__main__":
    main()

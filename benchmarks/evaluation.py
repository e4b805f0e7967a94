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
from pathlib import Path
from typing import Any

import click

from harness.engine import lm_eval_model, vllm_engine
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
    chat = load_chat(path, {})[1]
    asked: list[Any] = []
    generating = [0.0]
    real = vllm_engine.stream

    def remembered(llm: Any, prompts: Any, params: Any) -> Any:
        asked[:] = [(prompts, params)]
        started = time.perf_counter()
        yield from real(llm, prompts, params)
        generating[0] = time.perf_counter() - started

    vars(lm_eval_model)["stream"] = remembered  # so that the bare engine gets the very same prompts
    with (
        tempfile.TemporaryDirectory() as name,
        engines_for(
            {"it": path}, EngineSettings(max_model_len=context_length(path, [row]), threads=threads)
        ) as engines,
    ):
        llm = engines["it"]

        def evaluated(number: int) -> tuple[float, int]:
            started = time.perf_counter()
            llm.reset_prefix_cache()
            run, eval_spec = (
                Path(name) / str(number),
                EvalSpec(
                    model_name=model, tasks=(row,), max_model_len=context_length(path, [row]), chat=chat, limit=limit
                ),
            )
            found = evaluate(llm, eval_spec, VariantEval(run, "it", path.fingerprint))[task]
            return time.perf_counter() - started, sum(r["n_tokens"] for r in read_samples(run / found.samples).values())

        def bare() -> tuple[float, int]:
            llm.reset_prefix_cache()
            started = time.perf_counter()
            outputs = llm.generate(*asked[0], use_tqdm=False)
            return time.perf_counter() - started, sum(len(output.outputs[0].token_ids) for output in outputs)

        evaluated(-1)  # loads the data set and starts the sandboxes
        rounds = []
        for number in range(repeats):
            (ours, tokens), (theirs, same) = evaluated(number), bare()
            assert tokens == same, f"{tokens} tokens, and {same} from the bare engine"
            rounds.append((tokens / ours, same / theirs, tokens / generating[0]))
    ratios = sorted(a / b for a, b, _ in rounds)
    names = ("evaluation", "bare", "its generation")
    speeds = {
        name: round(statistics.median(column), 1) for name, column in zip(names, zip(*rounds, strict=True), strict=True)
    }
    found = {"model": model, "task": task, "n": limit, "tokens": tokens, "tok_s": speeds}
    click.echo(
        json.dumps({**found, "ratio": round(statistics.median(ratios), 3), "ratios": [round(r, 3) for r in ratios]})
    )


if __name__ == "__main__":
    main()

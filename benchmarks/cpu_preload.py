"""Intel's OpenMP and tcmalloc preloaded, float32 and bfloat16, side by side: `python -m benchmarks.cpu_preload`.

Every combination is an engine in a process of its own, all alive at the same time and asked in turn, so that drift of
the machine hits all alike. Cores must be idle. tcmalloc is the system's, or the file that --tcmalloc names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from harness.core.statistics import paired_ratio
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings, with_kv_cache
from harness.engine.preload import VARIABLE, preloaded_environment
from harness.engine.vllm_engine import engine
from harness.models import registry
from harness.serving.timing import Pass, interleaved, offline_round, serving_row
from harness.serving.workload import Workload, random_prompts

_LEVELS = (1, 8, 32)
_PROMPT_TOKENS = 64
_LEAST_SECONDS, _SETTLING = 2.0, 0.3
_DTYPES = ("float32", "bfloat16")


def workload_of(model: Any, tokens: int) -> Workload:
    prompts = random_prompts(max(_LEVELS), _PROMPT_TOKENS, model.shape.vocab_size)
    return Workload("random", prompts, tokens, least_seconds=_LEAST_SECONDS)


def serve(name: str, dtype: str, threads: int, tokens: int) -> None:
    """The child: for each concurrency on standard input a round, its measurement as JSON on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to standard error
    model = registry.locate(name, "math")
    workload = workload_of(model, tokens)
    settings = EngineSettings(dtype, workload.context, max(_LEVELS), threads, prefix_caching=False)
    with engine(model, with_kv_cache(model, settings)) as llm:
        for line in sys.stdin:
            print(json.dumps(asdict(offline_round(llm, workload, int(line)))), file=answers, flush=True)


def started(stack: ExitStack, command: list[str], preload: str) -> Any:
    """A child with these libraries preloaded."""
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}
    environment |= {VARIABLE: preload} if preload else {}
    pipe = subprocess.PIPE
    child = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment))
    assert child.stdin
    stack.callback(child.stdin.close)
    return child


def ask(child: Any, concurrency: int) -> Pass:
    time.sleep(_SETTLING)  # threads of the engine before wait for work at full load for a while
    print(concurrency, file=child.stdin, flush=True)
    return Pass(**json.loads(child.stdout.readline()))


def preloads(tcmalloc: Path | None) -> dict[str, str]:
    """Libraries by the name of the combination: none, Intel's OpenMP, and that with tcmalloc where there is one."""
    os.environ.pop(VARIABLE, None)
    found = preloaded_environment("bfloat16").get(VARIABLE, "")
    openmp, *system = found.split(":")
    if not openmp:
        raise click.ClickException("Intel's OpenMP is not installed; install it with pip install intel-openmp")
    allocator = str(tcmalloc) if tcmalloc else "".join(system)
    return {"plain": "", "iomp": openmp, **({"iomp+tcmalloc": f"{openmp}:{allocator}"} if allocator else {})}


def table(passes: Mapping[str, list[list[Pass]]]) -> list[dict[str, Any]]:
    """tok/s of every combination at every concurrency, and its ratio to plain in the same dtype."""
    found = []
    for name, levels in passes.items():
        dtype = name.partition(" ")[0]
        for number, (level, done) in enumerate(zip(_LEVELS, levels, strict=True)):
            row, plain = serving_row(level, done), serving_row(level, passes[f"{dtype} plain"][number])
            first = serving_row(level, passes["float32 plain"][number])
            found.append(
                {
                    "engine": name,
                    "concurrency": level,
                    "output_tok_s": row.output_tok_s,
                    "output_tok_cpu_s": row.output_tok_cpu_s,
                    "over plain": paired_ratio(plain.output_tok_s_repeats, row.output_tok_s_repeats),
                    "over plain float32": paired_ratio(first.output_tok_s_repeats, row.output_tok_s_repeats),
                }
            )
    return found


@click.command()
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--tokens", default=64, show_default=True)
@click.option("--tcmalloc", type=click.Path(path_type=Path, exists=True), help="libtcmalloc_minimal.so.4.")
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
@click.option("--child", type=click.Choice(_DTYPES), hidden=True)
def main(
    model: str, threads: int, repeats: int, tokens: int, tcmalloc: Path | None, out: Path | None, child: str | None
) -> None:
    prepare_environment(threads)
    if child:
        serve(model, child, threads, tokens)
        return
    options = ["--model", model, "--threads", str(threads), "--tokens", str(tokens)]
    command = [sys.executable, "-m", "benchmarks.cpu_preload", *options]
    workload = workload_of(registry.locate(model, "math"), tokens)
    with ExitStack() as stack:
        children = {
            f"{dtype} {name}": started(stack, [*command, "--child", dtype], preload)
            for dtype in _DTYPES
            for name, preload in preloads(tcmalloc).items()
        }
        runners = {name: partial(ask, process) for name, process in children.items()}
        passes = interleaved(runners, _LEVELS, repeats, workload)
    document = {"model": model, "threads": threads, "repeats": repeats, "rows": table(passes)}
    text = json.dumps(document, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

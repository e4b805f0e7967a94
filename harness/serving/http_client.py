"""A round over HTTP, by vLLM's own benchmark client (`vllm bench serve`), so that figures compare with everybody's."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from harness.core.errors import MeasurementError
from harness.serving import server
from harness.serving.server import Server
from harness.serving.timing import Pass
from harness.serving.workload import Workload


def write_requests(workload: Workload, tokenizer: Any, path: Path) -> None:
    """The prompts as text, in the client's own form (--dataset-name custom), which keeps the command repeatable."""
    rows = (json.dumps({"prompt": tokenizer.decode(list(ids))}) for ids in workload.prompts)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def arguments(
    running: Server, name: str, model: Path, requests: Path, workload: Workload, concurrency: int
) -> list[str]:
    """After `vllm bench serve`. As many requests as an offline round has, in the order of the file, all at once within
    the concurrency.
    """
    found = [
        "--backend",
        "openai",
        "--base-url",
        running.address.url,
        "--model",
        name,
        "--tokenizer",
        str(model),
        "--dataset-name",
        "custom",
        "--dataset-path",
        str(requests),
        "--custom-output-len",
        str(workload.output_tokens),
        "--skip-chat-template",
        "--disable-shuffle",
        "--num-prompts",
        str(len(workload.requests_for(concurrency))),
        "--max-concurrency",
        str(concurrency),
        "--temperature",
        "0",
        "--disable-tqdm",
        "--save-detailed",
        "--ready-check-timeout-sec",
        "0",
    ]
    return found if workload.stop_at_eos else [*found, "--ignore-eos"]


def online_round(running: Server, line: list[str]) -> Pass:
    """Raises MeasurementError where a request fails."""
    before = server.cpu_seconds(running)
    result = _client(line)
    found = Pass(result["duration"], server.cpu_seconds(running) - before)
    if result["failed"]:
        reason = next(
            (error.strip().splitlines()[-1] for error in result["errors"] if error.strip()), "no reason given"
        )
        raise MeasurementError(f"{result['failed']} requests failed ({reason}); see {running.log}")
    each = zip(result["input_lens"], result["ttfts"], result["itls"], result["output_lens"], strict=True)
    for prompt_tokens, first, gaps, tokens in each:
        moments = [first]
        for gap in gaps:
            moments.append(moments[-1] + gap)
        found.add(prompt_tokens, 0.0, moments, tokens)
    return found


def _client(line: list[str]) -> dict[str, Any]:
    from vllm.benchmarks.serve import add_cli_args, main_async
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    os.environ["no_proxy"] = "127.0.0.1"  # the client would ask a proxy for this machine's own address
    parser: Any = FlexibleArgumentParser()
    add_cli_args(parser)
    # in a thread, as a notebook has an event loop in this one
    with contextlib.redirect_stdout(io.StringIO()), ThreadPoolExecutor(1) as thread:
        found: dict[str, Any] = thread.submit(asyncio.run, main_async(parser.parse_args(line))).result()
    return found

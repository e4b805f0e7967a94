"""`harness bench` and `harness serve`."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import (
    CHAT,
    DEBUG,
    ENGINE,
    FRESH,
    JSON,
    OUT,
    SERVING,
    SPEED,
    TASK,
    SettingsCommand,
    out_option,
    typed_command,
)
from harness.cli.output import answer, show_run, stdout_to_stderr
from harness.cli.restart import restart_preloaded
from harness.serving import BENCH_DEFAULTS


@click.command(
    "bench",
    cls=SettingsCommand,
    settings=(*TASK, *CHAT, "dtype", *ENGINE, "trust_data", "threads", *SERVING),
    defaults=BENCH_DEFAULTS,
)
@click.argument("models", nargs=-1, required=True, shell_complete=complete_models)
@click.option(
    "--online", is_flag=True, panel=SPEED, help="Time vLLM's server over HTTP, by `vllm bench serve`, not the engine."
)
@click.option("--out", type=OUT, default=Path("runs/bench"), help="Run directory. Default: runs/bench.")
@FRESH
@JSON
@DEBUG
def bench_command(models: tuple[str, ...], out: Path, online: bool, fresh: bool, as_json: bool, **options: Any) -> None:
    """Throughput, latency and memory of MODELS on the same requests, interleaved; ratios are against the first.

    \b
    harness bench qwen-1.5b runs/x/checkpoint
    harness bench MODEL MODEL                 against itself: the noise
    harness bench MODEL CHECKPOINT --online   vLLM's server over HTTP
    """
    from harness import api
    from harness.config.settings import load_config

    config = load_config(None, {**options, "model": models[0]}, defaults=BENCH_DEFAULTS)
    restart_preloaded(config.dtype)
    with stdout_to_stderr():
        api.bench(models, online=online, out=out, fresh=fresh, config=config, command=typed_command())
    show_run(out, as_json)


@click.command("serve", cls=SettingsCommand, settings=("dtype", *ENGINE, "threads"))
@click.argument("checkpoint", shell_complete=complete_models)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
@click.option("--host", default="127.0.0.1", help="Address to listen on. Default: 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0 is any free one. Default: 8000."
)
@click.option(
    "--api-key",
    envvar="VLLM_API_KEY",
    help="Required on every request except health checks; prefer the variable VLLM_API_KEY. Default: none.",
)
@click.option(
    "--max-model-len",
    type=click.IntRange(1),
    help="Tokens of a prompt and its answer. Default: the model's limit; on a CPU 4096 at most.",
)
@out_option("runs/serve-CHECKPOINT")
@FRESH
@JSON
@DEBUG
def serve_command(
    checkpoint: str,
    extra: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    max_model_len: int | None,
    out: Path | None,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """vLLM's OpenAI-compatible server on CHECKPOINT, until Ctrl-C or SIGTERM.

    \b
    harness serve runs/x/checkpoint
    harness serve runs/x/checkpoint --tensor-parallel 2 -- --max-num-seqs 64
    VLLM_API_KEY=... harness serve runs/x/checkpoint --host 0.0.0.0

    After --, give vLLM's options that size and schedule its engine; docs/serving.md lists them, others are refused.
    The equivalent `vllm serve` command line is printed.
    """
    from harness.config.settings import load_config
    from harness.models.registry import has_chat_template
    from harness.pipeline.single_stage import row_name, serving_checkpoint
    from harness.serving import server

    config = load_config(None, {**options, "model": checkpoint})
    restart_preloaded(config.dtype)
    address = server.Address(host, port or server.free_port(), api_key)
    folder = out or Path("runs") / f"serve-{row_name(checkpoint)}"
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        with stdout_to_stderr():
            serve = server.ServerOptions(address, max_model_len, extra)
            serving = serving_checkpoint(config, serve, folder, fresh, typed_command())
            running = stack.enter_context(serving)
            chat = has_chat_template(checkpoint, {})
        found = {
            "url": f"{address.url}/v1",
            "model": row_name(checkpoint),
            "pid": running.process.pid,
            "log": str(running.log),
            "curl": server.curl_line(address, row_name(checkpoint), chat),
        }
        answer({**found, "run": str(folder)}, as_json)
        server.wait(running)

"""Click commands: parse, call, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import (
    ARMS,
    COMPLETIONS,
    CONFIG,
    DEBUG,
    DRY_RUN,
    DTYPE,
    FRESH,
    GENERAL_WEIGHT,
    JSON,
    LIMIT,
    METHOD,
    METRIC_SCORED,
    MODEL,
    ONLINE,
    PLANNING,
    PRESET,
    PROMPT_FORMAT,
    PRUNED_AND_EVALUATED,
    RECOVER,
    RECOVERY,
    SAMPLES,
    SCORE_TOKENS,
    SERVING,
    TASK,
    THREADS,
    out_option,
    typed_command,
)
from harness.cli.output import answer, show_run, stdout_to_stderr, visible
from harness.cli.results import (
    compare_command,
    inspect_command,
    push_command,
    report_command,
    runs_command,
    track_command,
)
from harness.cli.setup import (
    completion_command,
    config_group,
    doctor_command,
    metrics_command,
    models_command,
    tasks_command,
)
from harness.cli.sweep import presets_command, sweep_command
from harness.core.errors import HarnessError

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_PATH = click.Path(path_type=Path)


def main() -> None:
    """The console script: every error is one line, exit 1 or 2; the traceback only with --debug."""
    debug = "--debug" in sys.argv
    try:
        cli(prog_name="harness", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; the same command goes on where it stopped", err=True)
        sys.exit(1)
    except HarnessError as error:
        if debug:
            raise
        click.echo(f"error: {visible(str(error))}", err=True)
        sys.exit(error.exit_code)
    except Exception as error:  # the last resort for the user's sake: one line instead of a page
        if debug:
            raise
        line = next(iter(str(error).splitlines()), "")
        click.echo(
            f"error: unexpected {type(error).__name__}: {visible(line)} (run again with --debug for the traceback)",
            err=True,
        )
        sys.exit(1)


@click.group(context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(package_name="harness-prune")
@click.pass_context
@click.command_panel("Prune and prove", commands=["run", "sweep", "recover"])
@click.command_panel("One stage at a time", commands=["score", "plan", "prune", "eval", "grade"])
@click.command_panel("Serve and measure", commands=["bench", "serve"])
@click.command_panel("Look at results", commands=["runs", "report", "compare", "inspect", "push", "track"])
@click.command_panel(
    "What there is", commands=["doctor", "models", "tasks", "metrics", "presets", "config", "completion"]
)
def cli(context: click.Context) -> None:
    """Prunes FFN neurons of a task-specific language model and says, with intervals, what that did.

    \b
    harness run                                  the embedded model, 20 % removed
    harness run --model qwen-7b --dry-run        what it would do, without weights
    harness run --model ./my-model --task gsm8k  your own model
    harness runs                                 what has run, and how to go on
    harness doctor                               what is here, what is missing
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command("run")
@MODEL
@TASK
@METHOD
@PLANNING
@PRUNED_AND_EVALUATED
@SERVING
@CONFIG
@RECOVER
@RECOVERY
@out_option("runs/MODEL-TASK-VARIANT")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def run_command(
    config_file: Path | None,
    preset: str | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score, plan, export, evaluate and measure one model; write run.json and a report."""
    from harness.config.settings import load_config
    from harness.pipeline.resolve import name_problems, resolve
    from harness.pipeline.run import run

    config = load_config(config_file, options, preset, names=name_problems)
    if dry_run:
        _show_forecast(config, resolve, as_json)
        return
    with stdout_to_stderr():
        _, folder = run(config, out, fresh, typed_command())
    show_run(folder, as_json)


def _show_forecast(config: Any, resolver: Callable[[Any, bool], Any], as_json: bool) -> None:
    from harness.models.registry import looks_like_chat
    from harness.pipeline.dry_run import forecast, forecast_table

    found = forecast(resolver(config, looks_like_chat(config.model)))
    answer(found, as_json, forecast_table(found))


@cli.command("recover")
@click.argument("model", shell_complete=complete_models)
@TASK
@ARMS
@PLANNING
@PRUNED_AND_EVALUATED
@RECOVERY
@CONFIG
@out_option("runs/MODEL-TASK-recovered")
@DRY_RUN
@FRESH
@JSON
@DEBUG
def recover_command(
    model: str,
    config_file: Path | None,
    preset: str | None,
    out: Path | None,
    dry_run: bool,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fine-tune MODEL, a checkpoint, and evaluate it before and after.

    \b
    harness recover runs/x/checkpoint --task gsm8k
    harness recover qwen-1.5b --arms selective,random,dense --ratio 0.3

    With --arms, MODEL is pruned in each of these ways first; dense is MODEL itself, the control that says what is plain training.
    """
    from harness.config.settings import load_config
    from harness.pipeline.resolve import name_problems, resolve_recovery
    from harness.pipeline.run import recover

    config = load_config(config_file, {**options, "model": model, "recover": True}, preset, names=name_problems)
    if dry_run:
        _show_forecast(config, resolve_recovery, as_json)
        return
    with stdout_to_stderr():
        _, folder = recover(config, out, fresh, typed_command())
    show_run(folder, as_json)


@cli.command("score")
@click.argument("model", shell_complete=complete_models)
@TASK
@METRIC_SCORED
@GENERAL_WEIGHT
@SCORE_TOKENS
@COMPLETIONS
@PROMPT_FORMAT
@PRESET
@SAMPLES
@THREADS
@click.option("--out", type=_PATH, required=True, help="scores.safetensors to write.")
@JSON
@DEBUG
def score_command(model: str, preset: str | None, out: Path, as_json: bool, **options: Any) -> None:
    """Score MODEL's FFN neurons on a task."""
    from harness import api
    from harness.config.settings import load_config

    with stdout_to_stderr():
        found = api.score(metrics=(), out=out, config=load_config(None, {**options, "model": model}, preset))
    counts = {"n_target": found.n_target, "n_distractor": found.n_distractor}
    answer({"scores": str(out), "hash": found.file_hash, **counts}, as_json)


@cli.command("plan")
@click.argument("scores", type=_PATH)
@METHOD
@PLANNING
@click.option("--out", type=_PATH, help="plan.safetensors to write.")
@click.option(
    "--device", help="Write nothing; say what MODEL would take of 24GiB, A100-80, H100 ..., at several ratios."
)
@click.option(
    "--context", type=int, help="With --device: tokens of a request.  [default: 2048, or what the model can take]"
)
@JSON
@DEBUG
def plan_command(
    scores: Path, out: Path | None, device: str | None, context: int | None, as_json: bool, **options: Any
) -> None:
    """Decide which neurons stay, from SCORES; or, with --device, what a MODEL would take and gain there.

    \b
    harness plan scores.safetensors --ratio 0.3 --out plan.safetensors
    harness plan qwen-7b --device 24GiB
    harness plan qwen-7b --device A100-80 --context 4096 --ratio 0.25
    """
    from harness import api
    from harness.config.settings import load_config

    if device:
        from harness.pipeline.device_table import device_table, on_device

        with stdout_to_stderr():
            table = on_device(load_config(None, {**options, "model": str(scores)}), options["ratio"], device, context)
        answer(table, as_json, device_table(table))
        return
    if out is None:
        raise click.UsageError("--out is missing; give the plan.safetensors to write")
    with stdout_to_stderr():
        found = api.plan(scores, out=out, config=load_config(None, options))
    widths = list(found.widths) if len(set(found.widths)) > 1 else found.widths[0]
    names = {"method": found.method, "metric": found.metric, "compensated": found.compensated}
    answer({"plan": str(out), "intermediate_size": [found.intermediate_size, widths], **names}, as_json)


@cli.command("prune")
@click.argument("model", shell_complete=complete_models)
@click.argument("plan", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Checkpoint folder to write.")
@click.option("--verify", is_flag=True, help="Load it in transformers and vLLM and compare with the masked original.")
@THREADS
@JSON
@DEBUG
def prune_command(model: str, plan: Path, out: Path, verify: bool, threads: int | None, as_json: bool) -> None:
    """Write the smaller checkpoint of MODEL that PLAN describes."""
    from harness import api
    from harness.pipeline.single_stage import verify_checkpoint
    from pruning.plan import load_plan

    with stdout_to_stderr():
        loaded = load_plan(plan)
        made = api.prune(model, loaded, out)
        found: dict[str, Any] = {"checkpoint": str(out)}
        found |= {"parameters": made.parameters, "weight_bytes": made.weight_bytes}
        if verify:
            found["verified"] = verify_checkpoint(model, loaded, out, threads)
    answer(found, as_json)


@cli.command("eval")
@click.argument("model", shell_complete=complete_models)
@TASK
@LIMIT
@DTYPE
@THREADS
@click.option("--include-path", type=_PATH, help="Folder with lm-eval YAML of your own tasks.")
@out_option("runs/eval-MODEL")
@FRESH
@JSON
@DEBUG
def eval_command(
    model: str, include_path: Path | None, out: Path | None, fresh: bool, as_json: bool, **options: Any
) -> None:
    """Evaluate MODEL through lm-eval on a vLLM engine: our tasks, or any task, group or leaderboard of lm-eval by its
    name.
    """
    from harness.config.settings import load_config
    from harness.pipeline.single_stage import evaluate_checkpoint

    folder = out or Path("runs") / f"eval-{Path(model).name.lower()}"
    with stdout_to_stderr():
        evaluate_checkpoint(
            load_config(None, {**options, "model": model}), folder, fresh, include_path, typed_command()
        )
    show_run(folder, as_json)


@cli.command("grade")
@click.argument("answers", type=_PATH)
@click.option("--task", "-t", required=True, help="The task that was answered.")
@click.option("--out", type=_PATH, help="Sample rows to write, one per answer, in the same order.")
@DEBUG
def grade_command(answers: Path, task: str, out: Path | None) -> None:
    """Grade COMPLETIONS, a JSON Lines file made by any system, with the code of a run.

    Rows: `task_id` or `doc_id` (index in the test split), `text` (for code also `completion` or `solution`), optional
    `finish_reason` and `n_tokens`. The last line on standard output is the summary as JSON."""
    from harness.evaluation.grade_file import grade_file

    with stdout_to_stderr():
        found = grade_file(task, answers, out)
    click.echo(json.dumps(asdict(found)))


@cli.command("bench")
@click.argument("models", nargs=-1, required=True, shell_complete=complete_models)
@TASK
@DTYPE
@THREADS
@SERVING
@ONLINE
@click.option("--out", type=_PATH, default=Path("runs/bench"), show_default=True, help="Run directory.")
@FRESH
@JSON
@DEBUG
def bench_command(models: tuple[str, ...], out: Path, online: bool, fresh: bool, as_json: bool, **options: Any) -> None:
    """Throughput, latency and memory of MODELS on the same requests, in turns; ratios are against the first.

    \b
    harness bench qwen-1.5b runs/x/checkpoint
    harness bench MODEL MODEL                 against itself: how noise looks
    harness bench MODEL CHECKPOINT --online   vLLM's server over HTTP
    """
    from harness.config.settings import load_config
    from harness.pipeline.single_stage import bench_checkpoints

    with stdout_to_stderr():
        config = load_config(
            None, {**options, "model": models[0]}, defaults={"concurrency": (1, 8, 32, 128), "repeats": 5}
        )
        bench_checkpoints(config, models, out, fresh, online, typed_command())
    show_run(out, as_json)


@cli.command("serve")
@click.argument("checkpoint", shell_complete=complete_models)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, help="0: any that is free.")
@click.option(
    "--api-key", envvar="VLLM_API_KEY", help="Asked of every request but health checks; better as VLLM_API_KEY."
)
@click.option(
    "--max-model-len",
    type=int,
    help="Tokens of a prompt and its answer.  [default: the model's; on a CPU 4096 at most]",
)
@DTYPE
@THREADS
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
    harness serve runs/x/checkpoint -- --tensor-parallel-size 2
    VLLM_API_KEY=... harness serve runs/x/checkpoint --host 0.0.0.0

    What follows -- goes to `vllm serve` as it is; the plain line that all this stands for is printed.
    """
    from harness.config.settings import load_config
    from harness.pipeline.single_stage import row_name, serving_checkpoint
    from harness.serving import server

    config = load_config(None, {**options, "model": checkpoint})
    address = server.Address(host, port or server.free_port(), api_key)
    folder = out or Path("runs") / f"serve-{row_name(checkpoint)}"
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        with stdout_to_stderr():
            serving = serving_checkpoint(config, address, extra, folder, fresh, max_model_len, command=typed_command())
            running = stack.enter_context(serving)
        found = {
            "url": f"{address.url}/v1",
            "model": row_name(checkpoint),
            "pid": running.process.pid,
            "log": str(running.log),
        }
        answer({**found, "run": str(folder)}, as_json)
        server.wait(running)


_OTHERS = (
    sweep_command,
    runs_command,
    report_command,
    compare_command,
    inspect_command,
    push_command,
    track_command,
    doctor_command,
    models_command,
    tasks_command,
    metrics_command,
    presets_command,
    config_group,
    completion_command,
)
for _command in _OTHERS:
    cli.add_command(_command)


if __name__ == "__main__":
    main()

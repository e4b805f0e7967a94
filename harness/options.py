"""The options that commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_PATH = click.Path(path_type=Path)


def options(*chosen: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order of the help page."""

    def add(command: Any) -> Any:
        for option in reversed(chosen):
            command = option(command)
        return command

    return add


TASK = click.option("--task", "-t", multiple=True, help="Task; may be repeated, the first is the target.  [default: the model's]")
TOKENS = click.option("--tokens", type=click.Choice(["question", "answer", "both"]), help="Tokens that are scored.  [default: both]")
ANSWERS = click.option("--answers", type=click.Choice(["given", "generated"]), help="Worked, or the model's own.  [default: given]")
THREADS = click.option("--threads", type=int, help="CPU threads.  [default: all cores]")
FRESH = click.option("--fresh", is_flag=True, help="Start over where an existing run directory has other settings.")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and stop.")
CONFIG = click.option("--config", "config_file", type=_PATH, help="YAML file with settings; the command line wins.")
PRESET = click.option("--preset", type=click.Choice(["laptop", "paper", "quick"]), help="Settings by name, see `harness presets`.")
FRAME = click.option(
    "--frame", type=click.Choice(["evaluation", "raw"]), help="Prompts as in the evaluation, or plain.  [default: evaluation]"
)
LIMIT = click.option("--limit", type=int, help="Items per task.  [default: all]")
ITEMS = click.option("--items", type=_PATH, help="JSON list of the target's item numbers, instead of all.")
DTYPE = click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Engine's number type.")
SAMPLES = click.option("--calibration-samples", type=int, help="Target prompts; twice as many distractors.  [default: 160]")
METRIC_SCORED = options(
    click.option("--metric", help="Also this metric, where it needs more than the hook: obs, lape, taylor.  [default: best]"),
    click.option("--compensate/--no-compensate", default=None, help="Keep the second moments that a re-fit needs."),
)
RETAIN = click.option("--retain", type=float, help="Share of general tokens in what obs and re-fitting preserve.  [default: 0]")
METHOD = click.option("--method", type=click.Choice(["selective", "random", "reverse"]), help="What to remove.  [default: selective]")
PLANNING = options(
    click.option("--ratio", "-r", type=float, help="Fraction of FFN neurons to remove, in [0, 1).  [default: 0.2]"),
    click.option("--metric", help="Score, see `harness metrics`.  [default: best for selective, smd for reverse]"),
    click.option("--compensate/--no-compensate", default=None, help="Re-fit the remaining down_proj columns.  [default: with best]"),
    click.option("--sequential", is_flag=True, default=None, help="Re-fit each layer on what the layers before it give once pruned."),
    click.option("--allocation", type=click.Choice(["uniform", "global"]), help="Same width everywhere, or one ranking over layers."),
    click.option("--min-width", type=int, help="Least width of a layer under --allocation global.  [default: an eighth]"),
    click.option("--protect", type=float, help="Share of top contributors that stay whatever the metric says.  [default: 0]"),
    click.option("--seed", type=int, help="For random pruning.  [default: 0]"),
    click.option("--align", type=int, help="Width is rounded down to a multiple.  [default: 128, or 16 below width 1024]"),
)
SERVING = options(
    click.option("--concurrency", type=int, multiple=True, help="Requests at a time; repeatable.  [default: 1, 32; bench also 8, 128]"),
    click.option("--repeats", type=int, help="Repeats per variant.  [default: 3; bench 5]"),
    click.option("--output-tokens", type=int, help="Tokens generated per request.  [default: 64]"),
    click.option("--input-tokens", type=int, help="Random prompts of about so many tokens.  [default: the task's own prompts]"),
    click.option("--requests", type=int, help="Requests of a round.  [default: the concurrency, 4 at least]"),
    click.option("--natural", is_flag=True, default=None, help="Answers end by themselves, after --output-tokens at the latest."),
)
ONLINE = click.option("--online", is_flag=True, help="vLLM's server over HTTP, by `vllm bench serve`, instead of the engine.")


RECOVERY = options(
    click.option("--data", help="task, generated, a .jsonl file or a Hub data set.  [default: task]"),
    click.option("--tuning", type=click.Choice(["lora", "full"]), help="[default: full up to a billion parameters]"),
    click.option("--steps", type=int, help="Optimiser steps.  [default: 300]"),
    click.option("--epochs", type=float, help="Instead of --steps: times over the training examples."),
    click.option("--samples", type=int, help="Training examples.  [default: what the steps need]"),
    click.option("--batch", type=int, help="Examples per step.  [default: 16]"),
    click.option("--micro-batch", type=int, help="Of them at a time on a device.  [default: by size]"),
    click.option("--learning-rate", type=float, help="[default: by size; 2e-4 for LoRA]"),
    click.option("--max-length", type=int, help="Tokens of an example.  [default: 1024]"),
    click.option("--lora-rank", type=int, help="[default: 16]"),
    click.option("--lora-alpha", type=int, help="[default: 32]"),
    click.option("--lora-dropout", type=float, help="[default: 0.05]"),
    click.option("--distill", type=float, help="Weight of the dense model's distribution in the loss.  [default: 0]"),
    click.option("--packing", is_flag=True, default=None, help="Several examples to a row."),
    click.option("--gradient-checkpointing/--no-gradient-checkpointing", default=None, help="[default: above a billion]"),
    click.option("--curve", type=int, help="Evaluations on the way.  [default: 3]"),
    click.option("--processes", type=int, help="Launched by accelerate.  [default: the GPUs]"),
    click.option("--accelerate-config", type=_PATH, help="Accelerate's YAML.  [default: FSDP2, DDP for LoRA]"),
    click.option("--report-to", type=click.Choice(["trackio", "wandb", "mlflow", "tensorboard"]), help="Tracker of the training."),
)
PRUNED_AND_EVALUATED = options(RETAIN, TOKENS, ANSWERS, FRAME, PRESET, LIMIT, ITEMS, SAMPLES, DTYPE, THREADS)
SWEEP = options(
    click.option("--methods", help="With commas: metrics (best, smd, rms+refit ...), random, reverse.  [default: smd,best,random,reverse]"),
    click.option("--ratios", help="Fractions of FFN neurons to remove, with commas.  [default: 0.05,0.1, ... 0.35]"),
    click.option("--seeds", help="Of random pruning, with commas.  [default: 33,42,7]"),
    click.option("--recovered", help="Of the methods, and dense: fine-tune these too.  [default: none]"),
    click.option("--recovery-ratios", help="At which ratios.  [default: 0.3]"),
    click.option("--margin", type=float, help="Loss that still counts as none, for the threshold.  [default: 0.05]"),
    click.option("--allocation", type=click.Choice(["uniform", "global"]), help="Same width everywhere, or one ranking over layers."),
    click.option("--align", type=int, help="Width is rounded down to a multiple.  [default: 128, or 16 below width 1024]"),
    click.option("--launcher", type=click.Choice(["local", "ray"]), help="Processes of this machine, or actors of a Ray cluster."),
    click.option("--workers", type=int, help="Engines at a time.  [default: one per set of GPUs; 1 on a CPU]"),
    click.option("--tensor-parallel", type=int, help="GPUs of an engine.  [default: 1]"),
)

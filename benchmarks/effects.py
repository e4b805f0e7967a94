"""The paper's effects on the embedded model: `python benchmarks/effects.py --split test --out docs/effects.json`.

Selective, reverse and random pruning (three seeds) with the paper's S at one ratio, alignment 1, each a real export on
its own vLLM engine; then the comparisons of the model card. The model was chosen on the validation split with this
script and 400 target calibration prompts.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from harness.core.chat import ChatFormat
from harness.core.mask_statistics import difference_over_masks
from harness.core.progress import say
from harness.core.statistics import paired_mean_difference
from harness.core.types.calibration import CalibrationSet
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_correct
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from tasks.registry import find_task

SEEDS = (7, 33, 42)
TASKS = ("mini_math", "mini_facts", "mini_code")


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--split", type=click.Choice(["validation", "test"]), default="validation", show_default=True)
@click.option("--ratio", default=0.1, show_default=True)
@click.option("--metric", default="smd", show_default=True)
@click.option(
    "--score-tokens", "tokens", type=click.Choice(["prompt", "completion", "all"]), default="all", show_default=True
)
@click.option("--task", "tasks", multiple=True, default=TASKS, show_default=True)
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    model: str,
    split: str,
    ratio: float,
    metric: str,
    tokens: str,
    tasks: tuple[str, ...],
    samples: int,
    threads: int,
    out: Path | None,
) -> None:
    prepare_environment(threads)
    folder = registry.locate(model, "math")
    with tempfile.TemporaryDirectory() as scratch:
        calibration = scoring.calibrate(
            folder, folder.path.name, find_task("mini_math"), scoring.CalibrationRequest(samples, cast(Any, tokens))
        )
        arms = export_arms(folder, calibration, Path(scratch), PlanRequest(ratio, metric=metric), threads)
        found = {name: evaluate_arm(name, path, Path(scratch), tasks, split, threads) for name, path in arms.items()}
        document = {
            "split": split,
            "ratio": ratio,
            "metric": metric,
            "tokens": tokens,
            "samples": samples,
            "arms": found,
            **contrast(Path(scratch)),
        }
    text = json.dumps(document, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def export_arms(
    model: ModelFolder, calibration: CalibrationSet, scratch: Path, wanted: PlanRequest, threads: int
) -> dict[str, ModelFolder]:
    """The dense model and one checkpoint per arm."""
    scoring.score_model(model, calibration, scoring.ScoreRequest(threads=threads), scratch / "scores.safetensors")
    scores = score_file.load(scratch / "scores.safetensors")
    arms = {"dense": model}
    requests = {
        "selective": wanted,
        "reverse": replace(wanted, method="reverse"),
        **{f"random-{seed}": replace(wanted, method="random", seed=seed) for seed in SEEDS},
    }
    for name, request in requests.items():
        arms[name] = export(model, make_plan(scores, request), scratch / name)
    return arms


def evaluate_arm(
    name: str, model: ModelFolder, scratch: Path, tasks: tuple[str, ...], split: str, threads: int
) -> dict[str, float]:
    with engines_for({name: model}, EngineSettings(max_model_len=512, threads=threads)) as engines:
        eval_spec = EvalSpec(name, tuple(find_task(task) for task in tasks), 512, chat=ChatFormat(), split=split)
        found = evaluate(engines[name], eval_spec, VariantEval(scratch, name))
    say(
        f"{name}: "
        + ", ".join(
            f"{task} {100 * result.value:.1f} (fail {100 * (result.failure_rate or 0):.1f})"
            for task, result in found.items()
        )
    )
    return {task: result.value for task, result in found.items()}


def contrast(scratch: Path) -> dict[str, list[float]]:
    """Selective minus the mean of random masks, over masks and items, and minus dense, over items, on mini_math:
    [difference, low, high].
    """

    def right(name: str) -> list[bool]:
        rows = read_correct(scratch / "samples" / name / "mini_math.jsonl")
        return [rows[i] for i in sorted(rows)]

    selective = right("selective")
    value, low, high = difference_over_masks(selective, [right(f"random-{seed}") for seed in SEEDS])
    return {
        "selective_minus_random": [-value, -high, -low],
        "selective_minus_dense": list(paired_mean_difference(selective, [right("dense")])),
    }


if __name__ == "__main__":
    main()

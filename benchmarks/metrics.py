"""Metrics against each other on the embedded model: `python benchmarks/metrics.py --split validation --out
docs/metrics.json`.

All arms run on one vLLM engine whose FFN weights are swapped, with alignment 1. An arm is a metric's name or
random-SEED: smd, rms, random-7; with `+refit` where the remaining columns are re-fitted, `+sequential` where that is
done layer by layer, `+rec` where each layer is reconstructed after the re-fit. The default was chosen on the validation
split.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from harness.core.chat import ChatFormat
from harness.core.progress import say
from harness.core.statistics import paired_difference
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.engine.weight_swap import swapped
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_correct
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import save_plan
from tasks.registry import find_task

ARMS = (
    "random-7",
    "random-33",
    "random-42",
    "weight",
    "smd",
    "dprime",
    "contrast",
    "auroc",
    "lape",
    "ratio-abs",
    "ratio-rms",
    "ratio-std",
    "ratio-freq",
    "contrib",
    "rms",
    "wifv",
    "taylor",
    "obs",
    "random-7+refit",
    "smd+refit",
    "wifv+refit",
    "rms+refit",
    "obs+refit",
)


@click.command()
@click.option("--split", type=click.Choice(["validation", "test"]), default="validation", show_default=True)
@click.option(
    "--ratio", "ratios", type=float, multiple=True, default=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), show_default=True
)
@click.option("--arm", "arms", multiple=True, default=ARMS, show_default=True)
@click.option("--task", "tasks", multiple=True, default=("mini_math", "mini_facts"), show_default=True)
@click.option("--general-weight", default=0.0, show_default=True)
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    split: str,
    ratios: tuple[float, ...],
    arms: tuple[str, ...],
    tasks: tuple[str, ...],
    general_weight: float,
    samples: int,
    threads: int,
    out: Path | None,
) -> None:
    prepare_environment(threads)
    model = registry.locate("tiny-math", "math")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibration = scoring.calibrate(
            model, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(samples, "all")
        )
        request = scoring.ScoreRequest(("obs", "lape", "taylor"), True, general_weight, threads)
        scoring.score_model(model, calibration, request, folder / "scores")
        with engines_for({"dense": model}, EngineSettings(max_model_len=512, threads=threads)) as engines:
            judge = Judge(engines["dense"], folder, tasks, split)
            rows = [{"arm": "dense", "ratio": 0.0, **judge("dense")}]
            for ratio in ratios:
                for arm in arms:
                    plan_file = make_arm(arm, ratio, model, calibration, request, folder)
                    with swapped(judge.llm, plan_file):
                        rows.append({"arm": arm, "ratio": ratio, **judge(label(arm, ratio))})
        document = {
            "model": "tiny-math",
            "split": split,
            "general_weight": general_weight,
            "samples": samples,
            "rows": rows,
            "minus_smd": [
                minus_smd(folder, arm, ratio) for ratio in ratios for arm in arms if arm != "smd" and "smd" in arms
            ],
        }
    text = json.dumps(document, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def make_arm(
    arm: str, ratio: float, model: ModelFolder, calibration: Any, request: scoring.ScoreRequest, folder: Path
) -> Path:
    name, _, refit = arm.partition("+")
    random = name.startswith("random-")
    plan_file = folder / label(arm, ratio) / "plan.safetensors"
    plan = make_plan(
        score_file.load(folder / "scores"),
        PlanRequest(
            ratio,
            "random" if random else "selective",
            None if random else name,
            int(name.split("-")[1]) if random else 0,
            compensated=bool(refit),
            reconstructed=refit == "rec",
        ),
    )
    save_plan(plan, plan_file)
    if refit:
        wanted = replace(request, sequential=refit == "sequential")
        scoring.compensate_plan(model, calibration, wanted, folder / "scores", plan_file)
    return plan_file


def label(arm: str, ratio: float) -> str:
    return f"{arm}-{ratio:g}"


@dataclass(frozen=True)
class Judge:
    """Evaluates whatever weights the engine holds now."""

    llm: Any
    folder: Path
    tasks: tuple[str, ...]
    split: str

    def __call__(self, name: str) -> dict[str, list[float]]:
        eval_spec = EvalSpec(name, tuple(find_task(t) for t in self.tasks), 512, chat=ChatFormat(), split=self.split)
        found = evaluate(self.llm, eval_spec, VariantEval(self.folder, name))
        say(f"{name}: " + ", ".join(f"{task} {100 * result.value:.1f}" for task, result in found.items()))
        return {task: [round(v or 0.0, 4) for v in (r.value, r.ci_low, r.ci_high)] for task, r in found.items()}


def minus_smd(folder: Path, arm: str, ratio: float) -> dict[str, Any]:
    """Arm minus the paper's score on the same items of mini_math: [difference, low, high]."""

    def right(name: str) -> list[bool]:
        rows = read_correct(folder / "samples" / name / "mini_math.jsonl")
        return [rows[i] for i in sorted(rows)]

    found = paired_difference(right(label("smd", ratio)), right(label(arm, ratio)))
    return {
        "arm": arm,
        "ratio": ratio,
        "difference": [round(v, 4) for v in (found.difference, found.ci_low, found.ci_high)],
    }


if __name__ == "__main__":
    main()

"""Uniform, global and searched FFN widths against each other at equal numbers of neurons.

python benchmarks/allocation.py --out docs/allocation.json
python benchmarks/allocation.py --model smollm2-135m --target gsm8k_answers --task gsm8k_answers --limit 200
(the second needs HARNESS_DATA_DIR or the Hub)

All arms are `best`, on one vLLM engine whose FFN weights are swapped. A task's value is its accuracy, or its perplexity
where it is scored on given texts. nats: KL to the dense model on the held-out texts that the search is judged on, which
are in no task's test split.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click

from harness.core.chat import ChatFormat
from harness.core.progress import say
from harness.core.types.pruning import Allocation
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.engine.weight_swap import swapped
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.models import registry
from harness.pipeline import scoring
from harness.pipeline.width_search import Scored, find_widths
from pruning import score_file
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import save_plan
from tasks.registry import find_task
from tasks.task import Task

ARMS = get_args(Allocation)


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--target", default="mini_math", show_default=True, help="What is scored and searched on.")
@click.option("--task", "tasks", multiple=True, default=("mini_math", "mini_facts"), show_default=True)
@click.option("--split", type=click.Choice(["validation", "test"]), default="test", show_default=True)
@click.option("--ratio", "ratios", type=float, multiple=True, default=(0.2, 0.3, 0.5, 0.7), show_default=True)
@click.option("--arm", "arms", type=click.Choice(ARMS), multiple=True, default=ARMS, show_default=True)
@click.option("--align", default=1, show_default=True)
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--limit", type=int, help="Items of each task.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    model: str,
    target: str,
    tasks: tuple[str, ...],
    split: str,
    ratios: tuple[float, ...],
    arms: tuple[Allocation, ...],
    align: int,
    samples: int,
    limit: int | None,
    threads: int,
    out: Path | None,
) -> None:
    prepare_environment(threads)
    found, prompts = registry.locate(model, find_task(target).kind), scoring.CalibrationRequest(samples, "all")
    document: dict[str, Any] = {"model": model, "target": target, "split": split, "align": align, "samples": samples}
    document |= {"limit": limit, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calibration = scoring.calibrate(found, model, find_task(target), prompts)
        request = scoring.ScoreRequest(("obs",), True, 0.0, threads)
        scoring.score_model(found, calibration, request, folder / "scores")
        maker = Maker(
            Scored(found, calibration, request, score_file.load(folder / "scores")), find_task(target), prompts, folder
        )
        plans = {(ratio, arm): maker(ratio, arm, align) for ratio in ratios for arm in arms}
        with engines_for({"dense": found}, EngineSettings(max_model_len=_longest(model), threads=threads)) as engines:
            llm, spec = engines["dense"], EvalSpec("it", tuple(map(find_task, tasks)), _longest(model), ChatFormat())
            spec = replace(spec, split=split, limit=limit)
            document["rows"].append({"arm": "dense", "ratio": 0.0, **_values(llm, spec, folder, "dense")})
            for (ratio, arm), (plan_file, facts) in plans.items():
                with swapped(llm, plan_file):
                    values = _values(llm, spec, folder, f"{arm}-{ratio:g}")
                document["rows"].append({"arm": arm, "ratio": ratio, **facts, **values})
                say(json.dumps(document["rows"][-1]))
                if out:
                    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(document, indent=1))


@dataclass(frozen=True)
class Maker:
    """Plans with re-fitted columns, of one scoring."""

    scored: Scored
    task: Task
    prompts: scoring.CalibrationRequest
    folder: Path

    def __call__(self, ratio: float, arm: Allocation, align: int) -> tuple[Path, dict[str, Any]]:
        """The plan's file; its widths, and of a search its distance and that of uniform widths."""
        request = PlanRequest(ratio, metric="obs", alignment=align, allocation=arm, compensated=True)
        found = find_widths(self.scored, request, self.task, self.prompts) if arm == "search" else None
        plan, file = (
            make_plan(self.scored.scores, request, found.widths if found else None),
            self.folder / f"{arm}-{ratio:g}",
        )
        save_plan(plan, file / "plan.safetensors")
        scoring.compensate_plan(
            self.scored.model,
            self.scored.calibration,
            self.scored.request,
            self.folder / "scores",
            file / "plan.safetensors",
        )
        nats = {"nats": round(found.nats, 5), "uniform_nats": round(found.uniform_nats, 5)} if found else {}
        return file / "plan.safetensors", {"widths": list(plan.widths), **nats}


def _longest(model: str) -> int:
    return 512 if model == "tiny-math" else 2048


def _values(llm: Any, spec: EvalSpec, folder: Path, name: str) -> dict[str, list[float]]:
    """task -> [value, low, high]."""
    found = evaluate(llm, replace(spec, model_name=name), VariantEval(folder, name))
    return {task: [round(v or 0.0, 4) for v in (r.value, r.ci_low, r.ci_high)] for task, r in found.items()}


if __name__ == "__main__":
    main()

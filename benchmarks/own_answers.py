"""Calibration on given answers against the model's own: `python -m benchmarks.own_answers --out docs/own-answers.json`.

Scores the model on the same prompts with the data set's answers and with its own right ones
(`--completions generated`), prunes by `best` at every ratio on one live engine whose FFN weights are swapped, and
compares the answers of both to the same test items. The first task is the one that is scored for; the others are off
target. `same_answer` counts the prompts whose answers are the same tokens either way; where that is all of them, the
comparison says nothing. Another model:

    python -m benchmarks.own_answers --model MODEL --task mini_math --task mini_facts --limit 200
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from benchmarks.metrics import label, make_arm
from harness.core.progress import say
from harness.core.statistics import paired_difference
from harness.core.types.calibration import CalibrationSet
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.engine.weight_swap import swapped
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.evaluation.paired import read_correct
from harness.models import registry
from harness.models.tokenizer import load_chat
from harness.pipeline import scoring
from pruning.checkpoint import ModelFolder
from tasks.registry import find_task

ARM, KINDS = "obs+refit", ("given", "own")


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--task", "tasks", multiple=True, default=("mini_math", "mini_facts"), show_default=True)
@click.option("--ratio", "ratios", type=float, multiple=True, default=(0.3, 0.5, 0.6, 0.7), show_default=True)
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--limit", type=int, help="Test items of each task; all by default.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    model: str,
    tasks: tuple[str, ...],
    ratios: tuple[float, ...],
    samples: int,
    limit: int | None,
    threads: int,
    out: Path | None,
) -> None:
    prepare_environment(threads)
    folder = registry.locate(model, "math")
    with tempfile.TemporaryDirectory() as name:
        sets, plans = {}, {}
        for kind in KINDS:
            found = scored(folder, model, tasks[0], kind, samples, threads, Path(name) / kind, ratios)
            sets[kind], plans[kind] = found
        rows = compared(folder, tasks, plans, limit, threads, Path(name))
    document = {
        "model": Path(model).name,
        "task": tasks[0],
        "samples": samples,
        "calibration": {kind: found.target_source for kind, found in sets.items()},
        "prompts": len(sets["own"].items),
        "same_answer": sum(item in sets["given"].items for item in sets["own"].items),
        "rows": rows,
    }
    text = json.dumps(document, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def scored(
    model: ModelFolder,
    name: str,
    task: str,
    kind: str,
    samples: int,
    threads: int,
    folder: Path,
    ratios: Sequence[float],
) -> tuple[CalibrationSet, dict[float, Path]]:
    """The calibration prompts, and the plan of every ratio."""
    engine = EngineSettings(threads=threads)
    request = scoring.CalibrationRequest(samples, "all", generate_completions=kind == "own", engine=engine)
    calibration = scoring.calibrate(model, name, find_task(task), request)
    wanted = scoring.ScoreRequest(("obs",), True, threads=threads)
    folder.mkdir()
    scoring.score_model(model, calibration, wanted, folder / "scores")
    plans = {ratio: make_arm(ARM, ratio, model, calibration, wanted, folder) for ratio in ratios}
    return calibration, plans


def compared(
    model: ModelFolder,
    tasks: Sequence[str],
    plans: dict[str, dict[float, Path]],
    limit: int | None,
    threads: int,
    folder: Path,
) -> list[dict[str, Any]]:
    """A row for the dense model, and one for every ratio with own minus given answers on the same items."""
    context = min(2048, model.shape.max_position_embeddings)
    chat = load_chat(model, {})[1]
    spec = EvalSpec("dense", tuple(map(find_task, tasks)), context, chat=chat, limit=limit)
    with engines_for({"dense": model}, EngineSettings(max_model_len=context, threads=threads)) as engines:
        llm = engines["dense"]
        rows: list[dict[str, Any]] = [{"ratio": 0.0, "dense": judged(llm, spec, folder, "dense")}]
        for ratio in plans[KINDS[0]]:
            row: dict[str, Any] = {"ratio": ratio}
            for kind in KINDS:
                with swapped(llm, plans[kind][ratio]):
                    row[kind] = judged(llm, spec, folder, label(kind, ratio))
            row["own_minus_given"] = {task: difference(folder, task, ratio) for task in tasks}
            rows.append(row)
    return rows


def judged(llm: Any, spec: EvalSpec, folder: Path, name: str) -> dict[str, list[float]]:
    """[accuracy, low, high] of every task with whatever weights the engine holds now."""
    found = evaluate(llm, spec, VariantEval(folder, name))
    say(f"{name}: " + ", ".join(f"{task} {100 * result.value:.1f}" for task, result in found.items()))
    return {task: [round(v or 0.0, 4) for v in (r.value, r.ci_low, r.ci_high)] for task, r in found.items()}


def difference(folder: Path, task: str, ratio: float) -> dict[str, float]:
    """Own minus given answers on the same items, with its 95 % interval and the exact McNemar p."""

    def right(kind: str) -> list[bool]:
        rows = read_correct(folder / "samples" / label(kind, ratio) / f"{task}.jsonl")
        return [rows[i] for i in sorted(rows)]

    found = asdict(paired_difference(right("given"), right("own")))
    return {key: round(value, 4) for key, value in found.items()}


if __name__ == "__main__":
    main()

"""Pruning a real language model: perplexity of GSM8K's answers and of WikiText-2, seconds to prune, beside optipfair's.

python benchmarks/perplexity.py --out docs/perplexity.json
(needs HARNESS_DATA_DIR or the Hub, and optipfair as benchmarks/peer_tools.py says)

An arm is METRIC[+refit or +rec][@RETAIN], random-SEED[+refit or +rec], or optipfair (its data-driven MAW on the same
calibration texts); with +rec each layer is reconstructed after the re-fit. Every arm is an export with alignment 1,
scored by vLLM. seconds: from loading the model to the saved checkpoint, for one ratio. Rows of the file that were made
with the same settings and are not measured anew stay: `--arm obs+rec --ratio 0.5` adds or replaces one.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.peer_tools import optipfair_width
from harness.core.chat import ChatFormat
from harness.core.progress import say
from harness.core.types.calibration import CalibrationSet
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.evaluation.evaluate import evaluate
from harness.evaluation.lm_eval_requests import EvalSpec, VariantEval
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import save_plan
from tasks.registry import find_task

ARMS = ("obs+refit", "obs+rec", "obs+refit@0.5", "rms+refit", "rms", "smd", "random-7", "optipfair")
TASKS = ("gsm8k_answers", "wikitext")


@click.command()
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option("--ratio", "ratios", type=float, multiple=True, default=(0.2, 0.3, 0.5), show_default=True)
@click.option("--arm", "arms", multiple=True, default=ARMS, show_default=True)
@click.option(
    "--samples",
    default=160,
    show_default=True,
    help="GSM8K training problems; twice as many general prompts go with them.",
)
@click.option("--answers", default=200, show_default=True, help="GSM8K test answers scored.")
@click.option("--articles", default=4, show_default=True, help="WikiText-2 test articles scored.")
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--score/--no-score", "measured", default=True, show_default=True, help="Perplexities too, not only seconds."
)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(
    model: str,
    ratios: tuple[float, ...],
    arms: tuple[str, ...],
    samples: int,
    answers: int,
    articles: int,
    threads: int,
    measured: bool,
    out: Path | None,
) -> None:
    prepare_environment(threads)
    path = registry.locate(model, "math")
    calibration = scoring.calibrate(path, model, find_task("gsm8k_answers"), scoring.CalibrationRequest(samples, "all"))
    limits = dict(zip(TASKS, (answers, articles), strict=True)) if measured else {}
    document: dict[str, Any] = {"model": model, "samples": samples, "threads": threads, "limits": limits}
    document["rows"] = rows_kept(out, document, arms, ratios) if out else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        document["rows"].append({"arm": "dense", "ratio": 0.0, **perplexities(path, folder, limits, threads)})
        scored = {
            general_weight: timed_scores(arms, general_weight, path, calibration, threads, folder)
            for general_weight in sorted({general_weight_of(arm) for arm in arms})
        }
        for ratio in ratios:
            for arm in arms:
                checkpoint, seconds = timed_arm(
                    arm, ratio, path, calibration, threads, folder, scored[general_weight_of(arm)]
                )
                row = {
                    "arm": arm,
                    "ratio": ratio,
                    "seconds": seconds,
                    **perplexities(checkpoint, folder, limits, threads),
                }
                say(json.dumps(row))
                document["rows"].append(row)
                if out:
                    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(document, indent=1))


def rows_kept(
    out: Path, settings: Mapping[str, Any], arms: Sequence[str], ratios: Sequence[float]
) -> list[dict[str, Any]]:
    """Rows of an earlier file with the same settings that are not measured anew."""
    earlier = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {"rows": []}
    rows = earlier.pop("rows")
    anew = {("dense", 0.0), *itertools.product(arms, ratios)}
    return [row for row in rows if earlier == settings and (row["arm"], row["ratio"]) not in anew]


def general_weight_of(arm: str) -> float:
    return float(arm.partition("@")[2] or 0)


def timed_scores(
    arms: Sequence[str],
    general_weight: float,
    model: ModelFolder,
    calibration: CalibrationSet,
    threads: int,
    folder: Path,
) -> tuple[Path, float]:
    """The scores file with second moments beside it, for all arms with this share of general tokens, and its
    seconds.
    """
    out, started = folder / f"scores-{general_weight:g}", time.perf_counter()
    wanted = [arm for arm in arms if arm != "optipfair" and general_weight_of(arm) == general_weight]
    metrics = {"obs" for arm in wanted if arm.startswith("obs")}
    if wanted:
        scoring.score_model(
            model,
            calibration,
            scoring.ScoreRequest(tuple(metrics), any("+" in arm for arm in wanted), general_weight, threads),
            out,
        )
    return out, time.perf_counter() - started


def timed_arm(
    arm: str,
    ratio: float,
    model: ModelFolder,
    calibration: CalibrationSet,
    threads: int,
    folder: Path,
    scored: tuple[Path, float],
) -> tuple[ModelFolder, float]:
    """The checkpoint, and the seconds it takes from the dense model, scores included."""
    mine, started = folder / f"{arm}-{ratio:g}", time.perf_counter()
    mine.mkdir()
    if arm == "optipfair":
        out = mine / "checkpoint"
        made, before = optipfair_width(100 * ratio, model, calibration, threads, out), 0.0
    else:
        made, before = pruned(arm, ratio, model, calibration, threads, mine, scored[0]), scored[1]
    return made, round(before + time.perf_counter() - started, 1)


def pruned(
    arm: str, ratio: float, model: ModelFolder, calibration: CalibrationSet, threads: int, folder: Path, scores: Path
) -> ModelFolder:
    metric, _, refit = arm.partition("@")[0].partition("+")
    random = metric.startswith("random-")
    seed = int(metric.split("-")[1]) if random else 0
    plan_file = folder / "plan.safetensors"
    wanted = PlanRequest(
        ratio,
        "random" if random else "selective",
        None if random else metric,
        seed,
        compensated=bool(refit),
        reconstructed=refit == "rec",
    )
    plan = make_plan(score_file.load(scores), wanted)
    save_plan(plan, plan_file)
    if refit:
        scoring.compensate_plan(
            model,
            calibration,
            scoring.ScoreRequest(moments=True, general_weight=general_weight_of(arm), threads=threads),
            scores,
            plan_file,
        )
    return export(model, plan, folder / "checkpoint", plan_file)


def perplexities(
    checkpoint: ModelFolder, folder: Path, limits: Mapping[str, int | None], threads: int
) -> dict[str, Sequence[float]]:
    """task -> [value, low, high], on its first test items."""
    found: dict[str, Sequence[float]] = {}
    if not limits:
        return found
    longest = min(2048, checkpoint.shape.max_position_embeddings)
    with engines_for({"it": checkpoint}, EngineSettings(max_model_len=longest, threads=threads)) as engines:
        for task, limit in limits.items():
            eval_spec = EvalSpec("it", (find_task(task),), longest, chat=ChatFormat(), limit=limit)
            result = evaluate(engines["it"], eval_spec, VariantEval(folder, "it"))[task]
            found[task] = [round(value or 0.0, 4) for value in (result.value, result.ci_low, result.ci_high)]
    return found


if __name__ == "__main__":
    main()

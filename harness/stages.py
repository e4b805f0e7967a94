"""The pruning stages one at a time, on the same code as a run: `harness score`, `plan` and `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import models, scoring
from harness.config import RunConfig
from harness.engine import prepare_environment
from harness.pipeline import resolve
from harness.progress import stage
from harness.store import file_hash
from pruning.export import export
from pruning.plan import default_alignment, default_metric, load_plan, make_plan, save_plan


def score(config: RunConfig, out: Path) -> dict[str, Any]:
    spec = resolve(config)
    prepare_environment(config.threads)
    model = models.locate(config.model, spec.target.kind)
    found = scoring.calibrate(model, spec.model, spec.target, config.calibration_samples, config.tokens)
    with stage(f"Scoring on {len(found.items)} prompts", len(found.items)) as advance:
        stats = scoring.measure_activations(model, found, config.threads, advance)
    scoring.save_scores(stats, found, out)
    return {"scores": str(out), "hash": file_hash(out), "n_target": stats.target.count, "n_distractor": stats.distractor.count}


def plan(scores: Path, config: RunConfig, out: Path) -> dict[str, Any]:
    loaded = scoring.load_scores(scores)
    width = next(iter(loaded.scores.values())).shape[1]
    metric = None if config.method == "random" else config.metric or default_metric(config.method)
    made = make_plan(loaded, config.ratio, config.method, metric, config.seed, config.align or default_alignment(width))
    save_plan(made, out)
    return {"plan": str(out), "intermediate_size": [width, made.widths[0]], "method": made.method, "metric": made.metric}


def prune(model: str, plan_file: Path, out: Path) -> dict[str, Any]:
    loaded = load_plan(plan_file)
    source = models.locate(model, models.kind_of(model, loaded.model))
    with stage(f"Writing {out}"):
        made = export(source, loaded, out)
    return {"checkpoint": str(out), "parameters": made.parameters, "weight_bytes": made.weight_bytes}

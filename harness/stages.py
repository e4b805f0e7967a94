"""The pruning stages one at a time, on the same code as a run: `harness score`, `plan` and `prune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import models, scoring
from harness.config import RunConfig
from harness.engine import prepare_environment
from harness.errors import UsageError
from harness.progress import stage
from harness.scoring import ScoreRequest
from harness.spec import plan_request, resolve
from harness.store import file_hash
from harness.types import NeuronScores
from harness.verification import verify
from pruning import score_file
from pruning.checkpoint import fingerprint, need_one_width, shards
from pruning.export import export
from pruning.plan import load_plan, make_plan, save_plan


def score(config: RunConfig, out: Path) -> dict[str, Any]:
    """Writes `out`, the calibration beside it, and with `obs` or `--compensate` the second moments that `plan` needs."""
    spec = resolve(config)
    prepare_environment(config.threads)
    model = models.locate(config.model, spec.target.kind)
    need_one_width(model)
    found = scoring.calibrate(model, spec.model, spec.target, spec.calibration_request)
    scoring.save_calibration(found, _calibration_file(out))
    stats = scoring.score_model(model, found, spec.score_request, out)
    counts = {"n_target": stats.target.prompts.count, "n_distractor": stats.distractor.prompts.count}
    return {"scores": str(out), "hash": file_hash(out), **counts}


def _calibration_file(scores: Path) -> Path:
    return scores.with_name(f"{scores.name}.calibration.json")


def plan(scores: Path, config: RunConfig, out: Path) -> dict[str, Any]:
    loaded = score_file.load(scores)
    width = next(iter(loaded.scores.values())).shape[1]
    request = plan_request(config, width)
    made = make_plan(loaded, request)
    save_plan(made, out)
    if request.compensated:
        _compensate(loaded, scores, out, config)
    found = {"intermediate_size": [width, list(made.widths) if len(set(made.widths)) > 1 else made.widths[0]]}
    return {"plan": str(out), **found, "method": made.method, "metric": made.metric, "compensated": made.compensated}


def _compensate(loaded: NeuronScores, scores: Path, out: Path, config: RunConfig) -> None:
    """With the model that was scored, by the name that the scores carry, on the prompts that were scored."""
    file, name, model_hash = _calibration_file(scores), loaded.model, loaded.model_hash
    calibration = scoring.load_calibration(file) if file.exists() else None
    if calibration is None or calibration.hash != loaded.calibration_hash:
        raise UsageError(f"{file} is missing or not what {scores} was made from; score again, or give --no-compensate")
    model = models.locate(models.name_of(name), models.kind_of(models.name_of(name), name))
    if fingerprint(model) != model_hash:
        raise UsageError(f"{name} has other weights than the model that was scored; score it again")
    request = ScoreRequest((), True, loaded.retain, config.threads, config.sequential)
    scoring.compensate_plan(model, calibration, request, scores, out)


def prune(model: str, plan_file: Path, out: Path, verified: bool = False, threads: int | None = None) -> dict[str, Any]:
    """Writes the checkpoint and, where asked, holds it against the masked model in transformers and vLLM."""
    loaded = load_plan(plan_file)
    source = models.locate(model, models.kind_of(model, loaded.model))
    with stage(f"Writing {out}", len(shards(source))) as advance:
        made = export(source, loaded, out, plan_file, advance)
    found: dict[str, Any] = {"checkpoint": str(out), "parameters": made.parameters, "weight_bytes": made.weight_bytes}
    if verified:
        prepare_environment(threads)
        with stage("Verifying with transformers and vLLM"):
            found["verified"] = verify(source, loaded, plan_file, out, threads)
    return found

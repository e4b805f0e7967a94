"""What `--sequential` changes on the embedded model: `python -m benchmarks.sequential --out docs/sequential.json`.

Re-fits every plan twice: on the dense model's moments, and layer by layer with the layers before already pruned. A row
holds ||sequential - plain|| / ||plain|| of each layer's columns (Frobenius norms), and both variants' accuracy on the
test split.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.metrics import Judge, label, make_arm
from harness.engine.library_settings import prepare_environment
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import engines_for
from harness.engine.weight_swap import swapped
from harness.models import registry
from harness.pipeline import scoring
from pruning import compensation
from pruning.checkpoint import ModelFolder
from pruning.plan_file import load_plan
from tasks.registry import find_task

METRICS, RATIOS, TASKS = ("obs", "rms"), (0.2, 0.5, 0.6, 0.7), ("mini_math", "mini_facts")


@click.command()
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--threads", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to write.")
def main(samples: int, threads: int, out: Path | None) -> None:
    prepare_environment(threads)
    model = registry.locate("tiny-math", "math")
    calibration = scoring.calibrate(
        model, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(samples, "all")
    )
    request = scoring.ScoreRequest(("obs",), True, threads=threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scoring.score_model(model, calibration, request, folder / "scores")
        with engines_for({"dense": model}, EngineSettings(max_model_len=512, threads=threads)) as engines:
            judge, rows = Judge(engines["dense"], folder, TASKS, "test"), []
            for metric, ratio in ((metric, ratio) for metric in METRICS for ratio in RATIOS):
                row: dict[str, Any] = {"metric": metric, "ratio": ratio}
                plans = []
                for refit in ("refit", "sequential"):
                    arm = f"{metric}+{refit}"
                    plans.append(make_arm(arm, ratio, model, calibration, request, folder))
                    with swapped(judge.llm, plans[-1]):
                        row[refit] = {task: found[0] for task, found in judge(label(arm, ratio)).items()}
                rows.append({**row, "columns": changed(model, *plans)})
    text = json.dumps({"model": "tiny-math", "split": "test", "samples": samples, "rows": rows}, indent=1)
    click.echo(text)
    if out:
        out.write_text(text + "\n", encoding="utf-8")


def changed(model: ModelFolder, plain: Path, sequential: Path) -> list[float]:
    """The relative change of the re-fitted columns of every layer."""
    before, after = (compensation.load_layers(model, load_plan(file), file) for file in (plain, sequential))
    down = model.family.down_cut.name
    columns = ((before(layer)[down].float(), after(layer)[down].float()) for layer in range(len(model.widths)))
    return [round(float((new - old).norm() / old.norm()), 4) for old, new in columns]


if __name__ == "__main__":
    main()

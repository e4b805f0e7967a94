"""Speed and memory at several FFN widths, dense twice for the noise: `benchmarks/serving.py --model smollm2-135m --out runs/x`.

Which neurons go is left to chance, as only their number matters for speed. Writes a run directory as `harness bench` does.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from harness import models
from harness.config import load_config
from harness.engine import prepare_environment
from harness.standalone import bench_checkpoints
from harness.types import PruningPlan
from pruning.checkpoint import fingerprint, read_config
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import default_alignment, pruned_width


@click.command()
@click.option("--model", default="tiny-math")
@click.option("--ratio", "ratios", type=float, multiple=True, default=(0.2, 0.5))
@click.option("--concurrency", type=int, multiple=True, default=(1, 8, 32, 128))
@click.option("--repeats", type=int, default=5)
@click.option("--input-tokens", type=int, help="Random prompts of about so many tokens; otherwise those of mini_math.")
@click.option("--output-tokens", type=int, default=64)
@click.option("--threads", type=int, default=1)
@click.option("--dtype", default="auto")
@click.option("--online", is_flag=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(model: str, ratios: tuple[float, ...], threads: int, online: bool, out: Path, **options: object) -> None:
    prepare_environment(threads)
    dense = models.locate(model, "math")
    pruned = [str(narrowed(dense, ratio, out.parent / f"{out.name}-checkpoints")) for ratio in ratios]
    config = load_config(None, {"model": model, "task": ("mini_math",), "threads": threads, **options})
    bench_checkpoints(config, [model, model, *pruned], out, fresh=True, online=online)
    click.echo((out / "report.md").read_text(encoding="utf-8"))


def narrowed(dense: Path, ratio: float, folder: Path) -> Path:
    shape, draw = shape_of(read_config(dense)), np.random.default_rng(0)
    alignment = default_alignment(shape.intermediate_size)
    width = pruned_width(shape.intermediate_size, ratio, alignment)
    keep = tuple(
        np.sort(draw.choice(shape.intermediate_size, width, replace=False)).astype(np.int32) for _ in range(shape.num_hidden_layers)
    )
    plan = PruningPlan(
        keep, shape.intermediate_size, "random", None, ratio, 0, alignment, dense.name, fingerprint(dense), "", "both"
    )  # fmt: skip
    return export(dense, plan, folder / f"random-{ratio:g}").path


if __name__ == "__main__":
    main()

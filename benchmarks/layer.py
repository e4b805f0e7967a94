"""One FFN layer of 7B size, random second moments: seconds and peak memory of ranking all its neurons and of
re-fitting.

python benchmarks/layer.py --width 18944 --keep 15104 --hidden 3584 --threads 2
"""

from __future__ import annotations

import json
import resource
import time

import click


@click.command()
@click.option("--width", default=18944, show_default=True)
@click.option("--keep", default=15104, show_default=True)
@click.option("--hidden", default=3584, show_default=True)
@click.option("--rank", default=2048, show_default=True, help="Rank of the correlated part of H.")
@click.option("--threads", default=2, show_default=True)
@click.option(
    "--order/--no-order", default=True, show_default=True, help="Choose by OBS; else keep the largest contributions."
)
def main(width: int, keep: int, hidden: int, rank: int, threads: int, order: bool) -> None:
    import torch

    from pruning.obs import refit, removal_scores

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    scale = torch.rand(width, generator=generator)
    factor = torch.randn(width, rank, generator=generator) * scale[:, None]
    moments = (factor @ factor.T).div_(rank)
    moments.diagonal().add_(scale.square() * 0.1)
    del factor
    weight = torch.randn(hidden, width, generator=generator)
    started = time.perf_counter()
    if order:
        kept = torch.from_numpy(removal_scores(weight, moments)).topk(keep).indices.sort().values
    else:
        kept = (moments.diagonal().sqrt() * weight.norm(dim=0)).topk(keep).indices.sort().values
    chosen = time.perf_counter()
    fitted = refit(weight, moments, kept)
    assert torch.isfinite(fitted).all() and fitted.shape == (hidden, keep)
    found = {
        "width": width,
        "keep": keep,
        "hidden": hidden,
        "threads": threads,
        "order": "obs" if order else "rms",
        "choose_seconds": round(chosen - started, 1),
        "refit_seconds": round(time.perf_counter() - chosen, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    click.echo(json.dumps(found))


if __name__ == "__main__":
    main()

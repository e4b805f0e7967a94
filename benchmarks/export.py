"""Export against a plain copy of the folder, both fsynced, interleaved; and the peak of anonymous memory.

    python benchmarks/export.py --size 1.5b --repeats 5       # makes a checkpoint of random weights, and removes it

Aim: at most 1.5 times the copy, at most 1 GiB.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import click
import numpy as np

from harness.core.safetensors_stream import Entry, row_blocks, write_entries
from harness.core.types.pruning import PruningPlan
from harness.models.registry import ALIASES
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.families import shape_of
from pruning.plan import pruned_width
from pruning.shards import INDEX

LAYERS_PER_SHARD = 7


def make_checkpoint(folder: Path, alias: str) -> None:
    """Random finite BF16 weights in shards, with config and index."""
    config = {**(ALIASES[alias].config or {}), "dtype": "bfloat16"}
    shape = shape_of(config)
    keys = shape.num_key_value_heads * shape.head_dim
    hidden, width, weight_map = shape.hidden_size, shape.intermediate_size, {}
    layers = [
        [
            Entry(f"model.layers.{i}.{name}.weight", "BF16", size)
            for name, size in {
                "self_attn.q_proj": (hidden, hidden),
                "self_attn.k_proj": (keys, hidden),
                "self_attn.v_proj": (keys, hidden),
                "self_attn.o_proj": (hidden, hidden),
                "mlp.gate_proj": (width, hidden),
                "mlp.up_proj": (width, hidden),
                "mlp.down_proj": (hidden, width),
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
            }.items()
        ]
        for i in range(shape.num_hidden_layers)
    ]
    layers[0].append(Entry("model.embed_tokens.weight", "BF16", (int(str(config["vocab_size"])), hidden)))
    if not config["tie_word_embeddings"]:
        layers[-1].append(Entry("lm_head.weight", "BF16", (int(str(config["vocab_size"])), hidden)))
    block = np.random.default_rng(0).integers(0, 0x3F80, 1 << 22, dtype=np.uint16)

    def blocks(entry: Entry):  # type: ignore[no-untyped-def]
        for part in row_blocks(entry.data_bytes // 2, 2):
            yield block[: part.stop - part.start]

    folder.mkdir()
    groups = [list(chain(*layers[i : i + LAYERS_PER_SHARD])) for i in range(0, len(layers), LAYERS_PER_SHARD)]
    for number, entries in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_entries(folder / name, entries, {"format": "pt"}, blocks)
        weight_map.update({entry.name: name for entry in entries})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))


def sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


def timed(work: Callable[[], object], out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    work()
    sync(out)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def anonymous_peak(work: Callable[[], object]) -> int:
    """Peak of RssAnon in bytes while `work` runs in a process of its own, sampled every 5 ms."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    peak = 0
    while process.is_alive():
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(
                peak, *(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0
            )
        except OSError:
            break
        time.sleep(0.005)
    process.join()
    assert process.exitcode == 0
    return peak


@click.command()
@click.option("--size", type=click.Choice(["1.5b", "7b"]), default="1.5b", show_default=True)
@click.option("--ratio", default=0.2, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where to work.  [default: a temporary folder]")
def main(size: str, ratio: float, repeats: int, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source, out = Path(scratch) / "dense", Path(scratch) / "out"
        make_checkpoint(source, f"qwen-{size}")
        opened = open_model(source)
        shape, rng = opened.shape, np.random.default_rng(0)
        width = pruned_width(shape.intermediate_size, ratio, 128)
        keep = [
            np.sort(rng.permutation(shape.intermediate_size)[:width]).astype(np.int32)
            for _ in range(shape.num_hidden_layers)
        ]
        plan = PruningPlan(
            keep=tuple(keep),
            intermediate_size=shape.intermediate_size,
            method="random",
            metric=None,
            ratio=ratio,
            seed=0,
            alignment=128,
            model=f"qwen-{size}",
            model_hash=opened.fingerprint,
            scores_hash="none",
            tokens="all",
        )
        sync(source)
        pairs = [
            (timed(lambda: shutil.copytree(source, out), out), timed(lambda: export(opened, plan, out), out))
            for _ in range(repeats)
        ]
        peak = anonymous_peak(lambda: export(opened, plan, out))
        gigabytes = sum(file.stat().st_size for file in source.iterdir()) / 1e9
    copy, prune = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratios = [round(b / a, 2) for a, b in pairs]
    found = {"size": size, "gigabytes": round(gigabytes, 2), "copy_s": round(copy, 2), "export_s": round(prune, 2)}
    click.echo(
        json.dumps(
            {
                **found,
                "ratio_median": statistics.median(ratios),
                "ratios": ratios,
                "anonymous_mib": round(peak / 2**20, 1),
            }
        )
    )


if __name__ == "__main__":
    main()

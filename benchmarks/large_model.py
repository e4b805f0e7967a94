"""A model that is larger than the memory: scored, planned and exported by the commands, each in a process of its own.

    python benchmarks/large_model.py --size 7b --folder /tmp/large       # needs 29 GB of disk, which it frees again

Prints seconds and peak resident bytes of each command. Aim: at most 8 GiB for 7B (15.2 GB of BF16 weights). The weights
are random, in the model's shape; the tokenizer and the prompts are those of the embedded model.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from harness.core.safetensors_stream import Array, Entry, row_blocks, write_entries
from harness.core.text import size_text
from harness.models.registry import ALIASES, locate
from pruning.families import tensors_of, widths_of
from pruning.shards import INDEX
from pruning.side_files import copy_side_files

_SHARD_BYTES, _NUMBERS, _DEVIATION = 4 << 30, 1 << 22, 0.02


def make_checkpoint(folder: Path, alias: str) -> None:
    """Random BF16 weights in shards of 4 GiB, written block by block: normal with the deviation of a new model, norms
    of 1.
    """
    config = {**(ALIASES[alias].config or {}), "dtype": "bfloat16"}
    entries = [Entry(name, "BF16", shape) for name, shape in tensors_of(config, widths_of(config)).items()]
    rng = np.random.default_rng(0)
    numbers = _bfloat16(rng.standard_normal(_NUMBERS, dtype=np.float32) * np.float32(_DEVIATION))
    ones = np.full(1 << 16, 0x3F80, dtype=np.uint16)

    def blocks(entry: Entry) -> Iterator[Array]:
        for part in row_blocks(math.prod(entry.shape), 2):
            count = part.stop - part.start
            yield ones[:count] if "norm" in entry.name else np.roll(numbers, int(rng.integers(_NUMBERS)))[:count]

    folder.mkdir(parents=True)
    weight_map = {}
    groups = list(_shards(entries))
    for number, group in enumerate(groups, start=1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_entries(folder / name, group, {"format": "pt"}, blocks)
        weight_map.update({entry.name: name for entry in group})
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))
    copy_side_files(locate("tiny-math", "math"), folder)


def _bfloat16(values: Any) -> Array:
    """The upper halves of FP32 numbers."""
    found: Array = (values.view(np.uint32) >> 16).astype(np.uint16)
    return found


def _shards(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    group: list[Entry] = []
    for entry in entries:
        if group and sum(other.data_bytes for other in group) + entry.data_bytes > _SHARD_BYTES:
            yield group
            group = []
        group.append(entry)
    yield group


def measured(arguments: Sequence[str]) -> dict[str, Any]:
    """Runs a command of harness; its seconds, and the most memory that was resident at once."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "harness", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"harness {arguments[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return {"seconds": round(time.perf_counter() - started), "peak_resident_bytes": usage.ru_maxrss * 1024}


@click.command()
@click.option("--size", default="7b", show_default=True, help="1.5b, 7b ...: the alias qwen-SIZE.")
@click.option("--samples", default=16, show_default=True, help="Prompts of the task; twice as many others.")
@click.option("--metric", default="rms", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Where the model goes for the time being.")
@click.option("--threads", default=2, show_default=True)
def main(size: str, samples: int, metric: str, folder: Path | None, threads: int) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        model, scores, plan, pruned = (str(Path(scratch) / name) for name in ("model", "scores", "plan", "pruned"))
        make_checkpoint(Path(model), f"qwen-{size}")
        calibration = ("--calibration-samples", str(samples), "--prompt-format", "plain", "--threads", str(threads))
        commands = {
            "score": ("score", model, "--task", "mini_math", "--metric", metric, *calibration, "--out", scores),
            "plan": ("plan", scores, "--metric", metric, "--out", plan),
            "export": ("prune", model, plan, "--out", pruned),
        }
        for name, command in commands.items():
            found = measured(command)
            click.echo(f"{name}: {found['seconds']} s, {size_text(found['peak_resident_bytes'])} at most resident")


if __name__ == "__main__":
    main()

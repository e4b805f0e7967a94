"""Every way to remove KV groups, blocks and layers from the embedded model, and where each method's choice falls.

python -m benchmarks.structures --out docs/structure-arms.json

A structure is removed by zeros in the output projection that reads it (o_proj, down_proj): the same function as without
it, in any combination. All choices of so many structures are evaluated, one of every layer for KV groups. So random
pruning is the whole population here, not a sample of masks, and the rank of a method's choice needs no seeds. The arm
`best+refit` re-fits o_proj and is a checkpoint of its own.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import click

from benchmarks.peers import Subject, by_plan
from benchmarks.perplexity import perplexities
from harness.core.progress import say
from harness.core.types.pruning import NeuronScores, PruningPlan, StructureName
from harness.engine.library_settings import prepare_environment
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder, open_model
from pruning.plan import PlanRequest, make_plan
from pruning.structures import STRUCTURES, count_of
from tasks.registry import find_task

REMOVED: tuple[tuple[StructureName, int], ...] = (
    ("kv_group", 1),
    ("attention", 1),
    ("attention", 2),
    ("ffn", 1),
    ("ffn", 2),
    ("layer", 1),
    ("layer", 2),
)
METHODS: Mapping[str, tuple[Any, str | None]] = {"S": ("selective", "smd"), "reverse": ("reverse", "smd")}
Choice = tuple[int, ...]  # the removed layers, or the removed KV group of each layer


@dataclass(frozen=True)
class Judge:
    """Evaluates one model with parts of it at zero. limits: task -> items."""

    model: ModelFolder
    limits: Mapping[str, int | None]
    threads: int
    folder: Path

    def __call__(self, structure: StructureName, choice: Choice) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            out = Path(name) / "masked"
            shutil.copytree(self.model.path, out)
            _zero(out, structure, choice, self.model)
            return dict(perplexities(open_model(out), Path(name), self.limits, self.threads))


def _zero(folder: Path, structure: StructureName, choice: Choice, model: ModelFolder) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors, shape = load_file(file), model.shape
    columns = shape.num_attention_heads // shape.num_key_value_heads * shape.head_dim
    for layer, group in enumerate(choice) if structure == "kv_group" else ((layer, None) for layer in choice):
        if "attention" in STRUCTURES[structure].blocks:
            at = slice(None) if group is None else slice(group * columns, (group + 1) * columns)
            tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][:, at] = 0
        if "ffn" in STRUCTURES[structure].blocks:
            tensors[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()
    save_file(tensors, file, {"format": "pt"})


def choices(structure: StructureName, removed: int, model: ModelFolder) -> Iterator[Choice]:
    layers = model.shape.num_hidden_layers
    if structure != "kv_group":
        return combinations(range(layers), removed)
    return product(range(model.shape.num_key_value_heads), repeat=layers)


def choice_of(plan: PruningPlan) -> Choice:
    """Raises ValueError for a plan that removes more than one KV group of a layer."""
    if not plan.kv_keep:
        return plan.skip_attention or plan.skip_ffn
    gone = [set(range(plan.num_key_value_heads)) - set(map(int, keep)) for keep in plan.kv_keep]
    if any(len(groups) != 1 for groups in gone):
        raise ValueError(f"one KV group of every layer goes, here {gone}")
    return tuple(groups.pop() for groups in gone)


def arms(structure: StructureName, removed: int, scores: NeuronScores, model: ModelFolder) -> dict[str, Choice]:
    ratio = removed / count_of(structure, model.shape)
    methods = {**METHODS, "best": ("selective", "obs" if STRUCTURES[structure].refits else "rms")}
    return {
        arm: choice_of(make_plan(scores, PlanRequest(ratio, method, metric, structure=structure)))
        for arm, (method, metric) in methods.items()
    }


@click.command()
@click.option("--model", default="tiny-math", show_default=True)
@click.option("--task", "tasks", multiple=True, default=("mini_math", "mini_facts", "mini_code"), show_default=True)
@click.option("--limit", default=200, show_default=True, help="Test items of each task; the first task is the target.")
@click.option("--samples", default=160, show_default=True, help="Target calibration prompts.")
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
def main(model: str, tasks: tuple[str, ...], limit: int, samples: int, threads: int, out: Path) -> None:
    prepare_environment(threads)
    dense, limits = registry.locate(model, "math"), dict.fromkeys(tasks, limit)
    calibration = scoring.calibrate(dense, model, find_task(tasks[0]), scoring.CalibrationRequest(samples, "all"))
    document: dict[str, Any] = {"model": model, "limit": limit, "samples": samples, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        judge, subject = Judge(dense, limits, threads, Path(name)), Subject(dense, calibration, threads, Path(name))
        document["dense"] = perplexities(dense, Path(name), limits, threads)
        for structure, removed in REMOVED:
            scores = _scores(subject, structure)
            document["rows"].append(_row(judge, subject, structure, removed, scores))
            out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _scores(subject: Subject, structure: StructureName) -> NeuronScores:
    wanted, out = scoring.ScoreRequest((), False, 0.0, subject.threads, structure=structure), subject.folder / structure
    if STRUCTURES[structure].refits:
        wanted = scoring.ScoreRequest(("obs",), True, 0.0, subject.threads, structure=structure)
    if not out.exists():
        scoring.score_model(subject.model, subject.calibration, wanted, out)
    return score_file.load(out)


def _row(
    judge: Judge, subject: Subject, structure: StructureName, removed: int, scores: NeuronScores
) -> dict[str, Any]:
    """arms: name -> its choice. choices: every choice with its values, [value, low, high] of each task."""
    found = [{"choice": choice, **judge(structure, choice)} for choice in choices(structure, removed, judge.model)]
    chosen = arms(structure, removed, scores, judge.model)
    row: dict[str, Any] = {"structure": structure, "removed": removed, "arms": chosen}
    if STRUCTURES[structure].refits:
        (out := subject.folder / f"refit-{structure}").mkdir()
        left = count_of(structure, judge.model.shape) - removed
        checkpoint = by_plan(structure, "obs", refit=True).make(subject, left, out)
        row["refitted"] = perplexities(checkpoint, out, judge.limits, judge.threads)
    say(json.dumps(row))
    return {**row, "choices": found}


if __name__ == "__main__":
    main()

"""Every way to remove KV groups, blocks and layers from the embedded model, and where each method's choice falls.

python -m benchmarks.structures --out docs/structure-arms.json

A structure is removed by zeros in the output projection that reads it (o_proj, down_proj): the same function as without
it, in any combination. All choices of so many structures are evaluated; of KV groups a single one, and one of every
layer. So random pruning is the whole population here, not a sample of masks, and the rank of a method's choice needs no
seeds. `refitted` is the checkpoint of `best` with o_proj re-fitted.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations, product
from pathlib import Path
from typing import Any

import click

from benchmarks.peers import Subject, by_plan
from benchmarks.perplexity import perplexities
from harness.core.progress import say
from harness.core.types.pruning import Method, NeuronScores, PruningPlan, StructureName
from harness.engine.library_settings import prepare_environment
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder, open_model
from pruning.plan import PlanRequest, make_plan
from pruning.structures import STRUCTURES, count_of
from tasks.registry import find_task

EVERYWHERE = "of each layer"
REMOVED: tuple[tuple[StructureName, int, str], ...] = (
    ("kv_group", 1, ""),
    ("kv_group", 1, EVERYWHERE),
    ("attention", 1, ""),
    ("attention", 2, ""),
    ("ffn", 1, ""),
    ("ffn", 2, ""),
    ("layer", 1, ""),
    ("layer", 2, ""),
)
METHODS: Mapping[str, tuple[Method, str]] = {"S": ("selective", "smd"), "reverse": ("reverse", "smd")}
Choice = tuple[tuple[int, int], ...]  # what is removed: layer, and KV group of it, or 0 for a block or layer


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
    for layer, group in choice:
        if "attention" in STRUCTURES[structure].blocks:
            at = slice(group * columns, (group + 1) * columns) if structure == "kv_group" else slice(None)
            tensors[f"model.layers.{layer}.self_attn.o_proj.weight"][:, at] = 0
        if "ffn" in STRUCTURES[structure].blocks:
            tensors[f"model.layers.{layer}.mlp.down_proj.weight"].zero_()
    save_file(tensors, file, {"format": "pt"})


def choices(structure: StructureName, removed: int, where: str, model: ModelFolder) -> Iterator[Choice]:
    """Every way to remove so many, of each layer where `where` says so."""
    groups = model.shape.num_key_value_heads if structure == "kv_group" else 1
    of_layers = [[(layer, group) for group in range(groups)] for layer in range(model.shape.num_hidden_layers)]
    return product(*of_layers) if where else combinations(chain(*of_layers), removed)


def choice_of(plan: PruningPlan) -> Choice:
    if not plan.kv_keep:
        return tuple((layer, 0) for layer in plan.skip_attention or plan.skip_ffn)
    kept = [set(map(int, groups)) for groups in plan.kv_keep]
    every = product(range(len(kept)), range(plan.num_key_value_heads))
    return tuple((layer, group) for layer, group in every if group not in kept[layer])


def arms(
    structure: StructureName, removed: int, where: str, scores: NeuronScores, model: ModelFolder
) -> dict[str, Choice]:
    """What each method removes. No plan can remove a single KV group of the whole model: that is the one with the
    lowest score, or with the highest.
    """
    ratio = removed / count_of(structure, model.shape)
    methods: dict[str, tuple[Method, str]] = {
        **METHODS,
        "best": ("selective", "obs" if STRUCTURES[structure].refits else "rms"),
    }
    if structure == "kv_group" and not where:
        tables = {
            arm: scores.scores[metric] * (-1 if way == "reverse" else 1) for arm, (way, metric) in methods.items()
        }
        return {arm: (divmod(int(worth.argmin()), worth.shape[1]),) for arm, worth in tables.items()}
    return {
        arm: choice_of(make_plan(scores, PlanRequest(ratio, way, metric, structure=structure)))
        for arm, (way, metric) in methods.items()
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
        for structure, removed, where in REMOVED:
            document["rows"].append(_row(judge, subject, structure, removed, where))
            out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _scores(subject: Subject, structure: StructureName) -> NeuronScores:
    wanted, out = scoring.ScoreRequest((), False, 0.0, subject.threads, structure=structure), subject.folder / structure
    if STRUCTURES[structure].refits:
        wanted = scoring.ScoreRequest(("obs",), True, 0.0, subject.threads, structure=structure)
    if not out.exists():
        scoring.score_model(subject.model, subject.calibration, wanted, out)
    return score_file.load(out)


def _row(judge: Judge, subject: Subject, structure: StructureName, removed: int, where: str) -> dict[str, Any]:
    """arms: name -> its choice. choices: every choice with its values, [value, low, high] of each task."""
    every = choices(structure, removed, where, judge.model)
    found = [{"choice": choice, **judge(structure, choice)} for choice in every]
    chosen = arms(structure, removed, where, _scores(subject, structure), judge.model)
    row: dict[str, Any] = {"structure": structure, "removed": removed, "where": where, "arms": chosen}
    if STRUCTURES[structure].refits and where:
        (out := subject.folder / f"refit-{structure}").mkdir()
        left = count_of(structure, judge.model.shape) - removed
        checkpoint = by_plan(structure, "obs", refit=True).make(subject, left, out)
        row["refitted"] = perplexities(checkpoint, out, judge.limits, judge.threads)
    say(json.dumps(row))
    return {**row, "choices": found}


if __name__ == "__main__":
    main()

"""Ways to make a model smaller, beside each other at equal parameters of the whole model, and beside other tools.

    python -m benchmarks.peers --out docs/peers.json
    python -m benchmarks.peers --model tiny-math --samples 160 --task mini_math --task mini_facts \
        --layers 1 --layers 2 --kv-groups 1 --out docs/peers-tiny-math.json

Every arm is calibrated on the same texts, ends as a plain folder in BF16, and is evaluated by the same engine on the
same test items; nothing is trained. The first task is the target. A level is the size that is left without so many
layers, or KV groups of every layer: an arm that cannot come within half a percent of the dense model's parameters of it
is left out there. Rows that --out holds already are not made again. benchmarks/peer_tools.py says how to get the other
tools; an arm of one that is not there is left out.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click

from benchmarks import peer_tools
from benchmarks.perplexity import perplexities
from harness.core.progress import say
from harness.core.types.calibration import CalibrationSet
from harness.core.types.pruning import ModelShape, StructureName
from harness.engine.library_settings import prepare_environment
from harness.models import registry
from harness.pipeline import scoring
from pruning import score_file
from pruning.checkpoint import ModelFolder
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import save_plan
from pruning.structures import STRUCTURES, count_of, pruned_parameters
from tasks.registry import find_task

TOLERANCE = 0.005  # of the dense model's parameters


@dataclass(frozen=True)
class Subject:
    """What every arm starts from. folder: where scores and checkpoints go."""

    model: ModelFolder
    calibration: CalibrationSet
    threads: int
    folder: Path


@dataclass(frozen=True)
class Arm:
    """A way to make a model smaller.

    Attributes:
        structure: What it removes.
        make: (subject, units or layers that stay, folder) -> the checkpoint there.
        tool: The module that it needs beyond this project.
    """

    structure: StructureName
    make: Callable[[Subject, int, Path], ModelFolder]
    tool: str | None = None


def by_plan(
    structure: StructureName, metric: str, refit: bool, general_weight: float = 0.0, reconstructed: bool = False
) -> Arm:
    """This project's own."""

    def make(subject: Subject, left: int, out: Path) -> ModelFolder:
        scores, plan_file = _scores(subject, structure, general_weight), out / "plan.safetensors"
        ratio = 1 - left / count_of(structure, subject.model.shape)
        request = PlanRequest(ratio, metric=metric, compensated=refit, reconstructed=reconstructed, structure=structure)
        plan = make_plan(score_file.load(scores), request)
        save_plan(plan, plan_file)
        if refit:
            wanted = scoring.ScoreRequest((), True, general_weight, subject.threads, structure=structure)
            scoring.compensate_plan(subject.model, subject.calibration, wanted, scores, plan_file)
        return export(subject.model, plan, out / "checkpoint", plan_file)

    return Arm(structure, make)


def _scores(subject: Subject, structure: StructureName, general_weight: float) -> Path:
    """The scores file, with second moments beside it where the structure is re-fitted; made once."""
    out, refits = subject.folder / f"scores-{structure}-{general_weight:g}", STRUCTURES[structure].refits
    if not out.exists():
        metrics = ("obs",) if refits else ()
        wanted = scoring.ScoreRequest(metrics, refits, general_weight, subject.threads, structure=structure)
        scoring.score_model(subject.model, subject.calibration, wanted, out)
    return out


def _optipfair_width(subject: Subject, left: int, out: Path) -> ModelFolder:
    whole = subject.model.shape.intermediate_size
    percentage = 100 * (whole - left + 0.5) / whole  # it removes int(percentage / 100 * width)
    return peer_tools.optipfair_width(
        percentage, subject.model, subject.calibration, subject.threads, out / "checkpoint"
    )


def _optipfair_depth(subject: Subject, left: int, out: Path) -> ModelFolder:
    removed = subject.model.shape.num_hidden_layers - left
    return peer_tools.optipfair_depth(removed, subject.model, subject.calibration, subject.threads, out / "checkpoint")


def _torch_pruning(importance: Literal["l2", "taylor"], subject: Subject, left: int, out: Path) -> ModelFolder:
    return peer_tools.torch_pruning_width(
        importance, left, subject.model, subject.calibration, subject.threads, out / "checkpoint"
    )


ARMS: Mapping[str, Arm] = {
    "best": by_plan("neuron", "obs", refit=True),
    "best@0.5": by_plan("neuron", "obs", refit=True, general_weight=0.5),
    "best+rec": by_plan("neuron", "obs", refit=True, reconstructed=True),
    "layer": by_plan("layer", "rms", refit=False),
    "kv_group+refit": by_plan("kv_group", "obs", refit=True),
    "kv_group": by_plan("kv_group", "obs", refit=False),
    "optipfair": Arm("neuron", _optipfair_width, "optipfair"),
    "optipfair-depth": Arm("layer", _optipfair_depth, "optipfair"),
    "torch-pruning-l2": Arm("neuron", partial(_torch_pruning, "l2"), "torch_pruning"),
    "torch-pruning-taylor": Arm("neuron", partial(_torch_pruning, "taylor"), "torch_pruning"),
}


def levels(shape: ModelShape, layers: tuple[int, ...], kv_groups: tuple[int, ...]) -> dict[str, int]:
    """Name -> parameters, of the model without so many layers, or KV groups of every layer."""
    removed: list[tuple[StructureName, int]] = [("layer", n) for n in layers]
    removed += [("kv_group", n) for n in kv_groups]
    return {f"{name} {n}": pruned_parameters(name, shape, count_of(name, shape) - n) for name, n in removed}


def nearest(structure: StructureName, shape: ModelShape, parameters: int) -> int | None:
    """How many units of every layer, or layers, stay at the size nearest to `parameters`; None where none is near."""

    def away(left: int) -> int:
        return abs(pruned_parameters(structure, shape, left) - parameters)

    left = min(range(1, count_of(structure, shape)), key=away)
    return left if away(left) <= TOLERANCE * shape.parameters else None


@click.command()
@click.option("--model", default="smollm2-135m", show_default=True)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    default=("gsm8k_answers=200", "wikitext=4"),
    show_default=True,
    help="NAME, or NAME=N for its first N test items; the first is the target.",
)
@click.option("--arm", "arms", multiple=True, default=tuple(ARMS), type=click.Choice(tuple(ARMS)), show_default=True)
@click.option("--layers", multiple=True, default=(5, 7, 11), show_default=True, help="Levels: without N layers.")
@click.option("--kv-groups", multiple=True, default=(1,), show_default=True, help="Levels: without N KV groups.")
@click.option("--samples", default=160, show_default=True, help="Target prompts; twice as many general ones besides.")
@click.option("--threads", default=2, show_default=True)
@click.option("--work", type=click.Path(path_type=Path), help="Folder for scores and checkpoints; a temporary one.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
def main(
    model: str,
    tasks: tuple[str, ...],
    arms: tuple[str, ...],
    layers: tuple[int, ...],
    kv_groups: tuple[int, ...],
    samples: int,
    threads: int,
    work: Path | None,
    out: Path,
) -> None:
    prepare_environment(threads)
    limits = {name: int(limit) if limit else None for name, _, limit in (task.partition("=") for task in tasks)}
    target = find_task(next(iter(limits)))
    dense = registry.locate(model, "math")
    document = started(out, {"model": model, "samples": samples, "limits": limits})
    chosen = peer_tools.without_missing({name: arm.tool for name, arm in ARMS.items()}, arms)
    with ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        calibration = scoring.calibrate(dense, model, target, scoring.CalibrationRequest(samples, "all"))
        subject = Subject(dense, calibration, threads, folder)
        add_row(document, out, "dense", "dense", lambda: _row(dense, folder, limits, threads))
        for level, parameters in levels(dense.shape, layers, kv_groups).items():
            for name in chosen:
                if left := nearest(ARMS[name].structure, dense.shape, parameters):
                    add_row(document, out, level, name, partial(_made, subject, name, left, limits))


def started(out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The document so far. Raises UsageError where the file is of other settings."""
    if not out.exists():
        return {**settings, "rows": []}
    document: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if {name: document.get(name) for name in settings} != settings:
        raise click.UsageError(f"{out} holds rows of other settings; give another --out or remove it")
    return document


def add_row(document: dict[str, Any], out: Path, level: str, arm: str, make: Callable[[], dict[str, Any]]) -> None:
    if any((row["level"], row["arm"]) == (level, arm) for row in document["rows"]):
        return
    document["rows"].append({"level": level, "arm": arm, **make()})
    say(json.dumps(document["rows"][-1]))
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _made(subject: Subject, name: str, left: int, limits: Mapping[str, int | None]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=subject.folder) as folder:
        smaller = ARMS[name].make(subject, left, Path(folder))
        return _row(smaller, Path(folder), limits, subject.threads)


def _row(checkpoint: ModelFolder, folder: Path, limits: Mapping[str, int | None], threads: int) -> dict[str, Any]:
    """Sizes, and task -> [value, low, high]. kv_bytes_per_token: in BF16."""
    shape = checkpoint.shape
    return {
        "parameters": checkpoint.parameters,
        "intermediate_size": shape.intermediate_size,
        "layers": shape.num_hidden_layers,
        "kv_groups": shape.num_key_value_heads,
        "kv_bytes_per_token": shape.kv_bytes_per_token,
        **perplexities(checkpoint, folder, limits, threads),
    }


if __name__ == "__main__":
    main()

"""Writes checkpoints: of a model by a plan, and of a variant of a finished run by the plan that lies there."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.contained_files import file_below
from harness.core.errors import UsageError
from harness.core.progress import progress_bar, say
from harness.core.run_directory import is_locked
from harness.core.run_file import command_of, read_run
from harness.core.run_plans import checkpoint_name, plan_name
from harness.core.safetensors_stream import data_hash
from harness.core.types.pruning import PruningPlan
from harness.core.written_folder import check_replaceable
from harness.engine.devices import check_divides, check_gpus
from harness.engine.library_settings import library_settings
from harness.engine.memory_budget import EngineSettings
from harness.evaluation.verify_export import Verification, verify
from harness.models.recorded import locate_given, locate_recorded
from pruning.checkpoint import ModelFolder, open_model
from pruning.compensation import columns_file
from pruning.export import PLAN_COPY, export, replaceable
from pruning.plan_file import load_plan
from pruning.record import RECORD
from pruning.structures import kept_widths
from reports.verdict import choice, serve_line

_SHOWN = 5  # names of variants in an error
Pruned = tuple[ModelFolder, Verification | None]


@dataclass(frozen=True)
class FromRun:
    """A checkpoint that was written from a run directory. serve: the command that serves it, with the engine of the
    run.
    """

    variant: str
    checkpoint: Path
    made: ModelFolder
    verified: Verification | None
    serve: str


def prune(model: str, plan: PruningPlan, out: Path, verify_by: EngineSettings | None = None) -> Pruned:
    """Writes the smaller checkpoint of `model`, completely or not at all.

    Args:
        model: The dense model.
        plan: What stays of it.
        out: The folder to write.
        verify_by: How the engine is started in which the checkpoint is compared, as in transformers, with `model` whose
            other neurons are masked. None: it is not.

    Raises:
        UsageError: The plan is another model's, or the engine's GPUs cannot share the checkpoint.
        MeasurementError: Logits or tokens differ by more than rounding.
    """
    check_replaceable(out, replaceable())
    return write_checkpoint(locate_given(model, plan.model, plan.model_kind), plan, out, verify_by)


def prune_variant(folder: Path, name: str | None, out: Path | None, verify_by: EngineSettings | None = None) -> FromRun:
    """Writes the checkpoint of a variant of a finished run or sweep. Nothing is scored or evaluated again.

    Args:
        folder: The run directory.
        name: The variant; None: the one that the verdict recommends.
        out: The folder to write; None: `checkpoint` beside the plan, where a run writes its own.
        verify_by: As in `prune`.

    Raises:
        UsageError: The run recommends nothing, has no such variant or is at work, a file of the plan is gone, or the
            model has other weights by now.
        MeasurementError: Logits or tokens differ by more than rounding.
    """
    run = read_run(folder)
    if is_locked(folder):
        raise UsageError(f"{folder} is at work; wait until it has finished")
    chosen = _named(run, name, folder) if name else _recommended(run, folder)
    place = plan_name(run, chosen["name"])
    plan = _plan_of(run, chosen, place, folder)
    target = out or folder / checkpoint_name(place)
    if out or not _is_there(target, plan):
        check_replaceable(target, replaceable())
        source = locate_recorded(plan.model, plan.model_kind, plan.model_hash, str(plan.path))
        made, verified = write_checkpoint(source, plan, target, verify_by)
    elif verify_by:
        raise UsageError(f"{target} is there already; give another --out to write and verify it")
    else:
        say(f"{target} is there already")
        made, verified = open_model(target), None
    return FromRun(chosen["name"], target, made, verified, serve_line(run, str(target)))


def write_checkpoint(source: ModelFolder, plan: PruningPlan, out: Path, verify_by: EngineSettings | None) -> Pruned:
    """As `prune`, of an opened model."""
    if verify_by:
        check_gpus(verify_by.tensor_parallel)
        check_divides(str(source.path), source.shape, plan.widths, verify_by.tensor_parallel)
    with progress_bar(f"Writing {out}", len(source.shards)) as advance:
        made = export(source, plan, out, plan.path, advance)
    if verify_by is None:
        return made, None
    with library_settings(verify_by.threads), progress_bar("Verifying with transformers and vLLM"):
        file = plan.path or made.path  # only a plan with re-fitted columns needs its file
        return made, verify(source, plan, file, made, verify_by)


def _recommended(run: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    chosen = choice(run)
    if chosen is None:
        raise UsageError(f"{folder} recommends no variant; {_choose(run)}")
    if run["goal"] and not chosen.shown:
        raise UsageError(f"{folder} found no model that meets its goal; {_choose(run)}")
    if not chosen.shown:
        margin = f"{100 * (chosen.margin or 0):g} points"
        raise UsageError(
            f"{folder} recommends no variant: no ratio of the arm that can be recommended is shown to lose less than "
            f"{margin}; {_choose(run)}"
        )
    return chosen.variant


def _named(run: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = next((v for v in run["variants"] if v["name"] == name), None)
    if found is None:
        raise UsageError(f"{folder} has no variant {name!r}; {_choose(run, name)}")
    if found["recovered"]:
        where = f"; its checkpoint is {folder / found['checkpoint']}" if found["checkpoint"] else ""
        raise UsageError(f"{name} was fine-tuned, and no plan describes it{where}")
    if found is run["variants"][0]:
        raise UsageError(f"{name} is the model that was given, not a pruned one; {_choose(run)}")
    return found


def _choose(run: Mapping[str, Any], wanted: str = "") -> str:
    names = [v["name"] for v in run["variants"][1:] if not v["recovered"]]
    shown = difflib.get_close_matches(wanted, names, _SHOWN) or names[:_SHOWN]
    more = f" ... ({len(names)} in all)" if len(names) > len(shown) else ""
    return f"give one with --variant: {', '.join(shown)}{more}" if names else "nothing was pruned in it"


def _plan_of(run: Mapping[str, Any], chosen: Mapping[str, Any], place: str, folder: Path) -> PruningPlan:
    """Raises UsageError where a file of the plan is gone, or where it is not this variant's."""
    file = file_below(folder, place)
    plan = load_plan(file) if file else None
    columns = file_below(folder, str(columns_file(Path(place)))) if chosen["compensated"] else file
    if plan is None or columns is None:
        gone = folder / place if plan is None else columns_file(folder / place)
        command = command_of(folder, run)
        again = f"`{command}` makes it" if command else "the same run again makes it"
        raise UsageError(f"{gone} is not there, which the checkpoint is made from; {again}")
    kept = [plan.method, plan.metric, plan.compensated, *kept_widths(plan)]
    told = [chosen["method"], chosen["metric"], chosen["compensated"], *chosen["intermediate_sizes"]]
    if kept != told or run["model_hash"] not in (None, plan.model_hash):
        raise UsageError(f"{folder / place} is not the plan of {chosen['name']} by run.json; run again with --fresh")
    return plan


def _is_there(target: Path, plan: PruningPlan) -> bool:
    """Whether a folder holds the checkpoint of a plan, as far as its own copy of the plan says so."""
    copy = target / PLAN_COPY
    return (target / RECORD).is_file() and copy.is_file() and data_hash(copy) == data_hash(Path(str(plan.path)))

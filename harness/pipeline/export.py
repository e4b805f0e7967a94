"""Writes a plan, or a checkpoint that is there, in the form that one way of serving needs."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.progress import progress_bar
from harness.core.types.pruning import PruningPlan
from harness.core.written_folder import check_replaceable
from harness.models import registry
from harness.models.recorded import locate_recorded
from pruning.checkpoint import ModelFolder
from pruning.decilm import decilm_replaceable, export_decilm, layers_of, plan_refusal, unsayable, write_decilm
from pruning.export import export, predict_size, replaceable
from pruning.gguf_file import NO_BARE_LAYERS, check_gguf_place, gguf_refusal, write_gguf
from pruning.plan_file import load_plan
from pruning.structures import home_refusal, kept_widths, without_attention

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Home:
    """A form of checkpoint.

    Attributes:
        needs: What serving it takes, one line.
        serve: The plain command that serves it; {} is the path.
        refusal: Why a model, with what a plan leaves of it, cannot have this form, None where it can. Without a plan
            it is the model as it is.
        write: Writes what a plan leaves of a model to a path.
        weight_bytes: Of the weight files that `write` would write, to the byte; None where only writing tells.
        check_place: Raises UsageError where the path holds what may not be replaced.
        rewrite: Writes a checkpoint in this form to a path; None where the checkpoint has this form.
    """

    needs: str
    serve: str
    refusal: Callable[[ModelFolder, PruningPlan | None], str | None]
    write: Callable[[ModelFolder, PruningPlan, Path, Advance], object]
    weight_bytes: Callable[[ModelFolder, PruningPlan], int | None]
    check_place: Callable[[Path], None]
    rewrite: Callable[[ModelFolder, Path], Path] | None = None


@dataclass(frozen=True)
class Exported:
    """What was written, or would be.

    Attributes:
        home: A key of `HOMES`.
        path: Of the folder, or of the one file.
        serve: The command for it.
        weight_bytes: Of its weight files; None where only writing tells.
    """

    home: str
    path: Path
    needs: str
    serve: str
    weight_bytes: int | None = None


def _uneven(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    """How layers differ, None where they are alike."""
    if len(set(kept_widths(plan) if plan else model.widths)) > 1:
        return "its FFN width differs from layer to layer"
    return "some of its layers have no attention" if _bare(model, plan) else None


def _bare(model: ModelFolder, plan: PruningPlan | None) -> bool:
    return bool(without_attention(plan) if plan else model.shape.skipped_attention)


def _unsayable(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    """Why no config.json of the family can say what stays, widths and attention aside."""
    return home_refusal(plan, model.family, model.config) if plan else None


def _not_plain(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    return _unsayable(model, plan) or _uneven(model, plan)


def _not_decilm(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    return plan_refusal(model, plan) if plan else unsayable(model.config, model.shape, layers_of(model))


def _not_plugin(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    if refusal := _unsayable(model, plan):
        return refusal
    if not _uneven(model, plan):
        return "it has one FFN width, which vLLM loads without a plugin"
    if not model.family.supports_nonuniform_widths:
        return f"vLLM cannot run {model.family.model_type} with non-uniform FFN widths"
    return None


def _not_gguf(model: ModelFolder, plan: PruningPlan | None) -> str | None:
    if _bare(model, plan):
        return NO_BARE_LAYERS
    return _unsayable(model, plan) or gguf_refusal(model, kept_widths(plan) if plan else model.widths)


def _write_checkpoint(model: ModelFolder, plan: PruningPlan, out: Path, advance: Advance) -> ModelFolder:
    return export(model, plan, out, plan.path, advance)


def _write_gguf(model: ModelFolder, plan: PruningPlan, out: Path, advance: Advance) -> Path:
    """By way of a checkpoint that is gone afterwards, on the disk of `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        return write_gguf(_write_checkpoint(model, plan, Path(scratch) / "checkpoint", advance), out)


def _checkpoint_bytes(model: ModelFolder, plan: PruningPlan) -> int:
    return predict_size(model, plan).weight_bytes


def _decilm_bytes(model: ModelFolder, plan: PruningPlan) -> int:
    return predict_size(model, plan, decilm=True).weight_bytes


def _only_written(_model: ModelFolder, _plan: PruningPlan) -> None:
    """The header of a GGUF file holds the tokenizer, in a form that its writer makes."""


def _checkpoint_place(out: Path) -> None:
    check_replaceable(out, replaceable())


def _decilm_place(out: Path) -> None:
    check_replaceable(out, decilm_replaceable())


HOMES: Mapping[str, Home] = {  # the one that needs least comes first
    "vllm": Home(
        "vLLM or transformers, as they are",
        "vllm serve {}",
        _not_plain,
        _write_checkpoint,
        _checkpoint_bytes,
        _checkpoint_place,
    ),
    "decilm": Home(
        "vLLM as it is, and --trust-remote-code for the configuration class in the folder; not transformers",
        "vllm serve {} --trust-remote-code",
        _not_decilm,
        export_decilm,
        _decilm_bytes,
        _decilm_place,
        write_decilm,
    ),
    "plugin": Home(
        "vLLM where harness-prune is installed; in Python pruning.loader.load_pruned",
        "vllm serve {}",
        _not_plugin,
        _write_checkpoint,
        _checkpoint_bytes,
        _checkpoint_place,
    ),
    "gguf": Home(
        "llama.cpp, or a program that is built on it; not quantised",
        "llama-server -m {}",
        _not_gguf,
        _write_gguf,
        _only_written,
        check_gguf_place,
        write_gguf,
    ),
}


def export_to(source: Path, home: str | None, out: Path, dry_run: bool = False) -> Exported:
    """Writes a plan, or a checkpoint of its own, as `home` needs it; on a dry run says what would be written.

    Args:
        source: A plan, whose model is looked for where it was; or a checkpoint folder, which is only ever changed into
            a DeciLM folder or a GGUF file, as the other forms are what pruning writes.
        home: A key of `HOMES`; None: the first that can say it.
        out: The folder to write, or the file where the form is one.

    Raises:
        UsageError: This home cannot say it, the model is gone, or `out` holds something else.
    """
    if source.is_dir():
        model = registry.locate(str(source.absolute()), "general")  # an alias is no path
        return _of_folder(model, home, out, dry_run)
    plan = load_plan(source)
    model = locate_recorded(plan.model, plan.model_kind, plan.model_hash, str(source))
    chosen = _chosen(model, plan, home, source)
    HOMES[chosen].check_place(out)
    if not dry_run:
        with progress_bar(f"Writing {out}", len(model.shards)) as advance:
            HOMES[chosen].write(model, plan, out, advance)
    return _told(chosen, out, HOMES[chosen].weight_bytes(model, plan))


def _of_folder(model: ModelFolder, home: str | None, out: Path, dry_run: bool) -> Exported:
    chosen = _chosen(model, None, home, model.path)
    rewrite = HOMES[chosen].rewrite
    if rewrite is None:
        others = " or ".join(name for name, each in HOMES.items() if each.rewrite)
        raise UsageError(f"{model.path} is served as it is: {HOMES[chosen].needs}; give --to {others} for another form")
    HOMES[chosen].check_place(out)
    size = model.weight_bytes if chosen == "decilm" else None  # its weight files are linked
    return _told(chosen, out if dry_run else rewrite(model, out), size)


def _chosen(model: ModelFolder, plan: PruningPlan | None, home: str | None, source: Path) -> str:
    """Raises UsageError where no home, or not the given one, can say this plan of this model."""
    refusals = {name: each.refusal(model, plan) for name, each in HOMES.items()}
    possible = [name for name, refusal in refusals.items() if refusal is None]
    if home is None and possible:
        return possible[0]
    if home in possible:
        return home
    reason = refusals[home] if home else "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    instead = (
        f"give --to {' or '.join(possible)}" if possible else "plan it with --allocation uniform, of neurons or layers"
    )
    raise UsageError(f"{source} cannot be exported{f' to {home}' if home else ''}: {reason}; {instead}")


def _told(home: str, out: Path, weight_bytes: int | None) -> Exported:
    return Exported(home, out, HOMES[home].needs, HOMES[home].serve.format(shlex.quote(str(out))), weight_bytes)

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
from harness.core.written_folder import Replaceable, check_replaceable
from harness.models import registry
from harness.models.recorded import locate_recorded
from pruning.checkpoint import ModelFolder
from pruning.decilm import decilm_replaceable, layers_of, unsayable, write_decilm
from pruning.export import export, replaceable
from pruning.plan_file import load_plan

Widths = tuple[int, ...]


@dataclass(frozen=True)
class Home:
    """A form of checkpoint.

    Attributes:
        needs: What serving it takes, one line.
        options: Of `vllm serve`.
        refusal: Why a model of these widths cannot have this form, None where it can.
        replaceable: Which folders it may replace.
    """

    needs: str
    options: tuple[str, ...]
    refusal: Callable[[ModelFolder, Widths], str | None]
    replaceable: Callable[[], Replaceable]


@dataclass(frozen=True)
class Exported:
    """What was written. home: a key of `HOMES`. serve: the plain command that serves it."""

    home: str
    folder: Path
    needs: str
    serve: str


def _uneven(_: ModelFolder, widths: Widths) -> str | None:
    return "its FFN width differs from layer to layer" if len(set(widths)) > 1 else None


def _not_decilm(model: ModelFolder, widths: Widths) -> str | None:
    return unsayable(model.config, model.shape, layers_of(model, widths))


def _not_plugin(model: ModelFolder, widths: Widths) -> str | None:
    if len(set(widths)) == 1:
        return "it has one FFN width, which vLLM loads without a plugin"
    if not model.family.supports_nonuniform_widths:
        return f"vLLM cannot run {model.family.model_type} with non-uniform FFN widths"
    return None


HOMES: Mapping[str, Home] = {  # the one that needs least comes first
    "vllm": Home("vLLM or transformers, as they are", (), _uneven, replaceable),
    "decilm": Home(
        "vLLM as it is, and --trust-remote-code for the configuration class in the folder; not transformers",
        ("--trust-remote-code",),
        _not_decilm,
        decilm_replaceable,
    ),
    "plugin": Home(
        "vLLM where harness-prune is installed; in Python pruning.loader.load_pruned", (), _not_plugin, replaceable
    ),
}


def export_to(source: Path, home: str | None, out: Path) -> Exported:
    """Writes a plan, or a checkpoint of its own, as `home` needs it.

    Args:
        source: A plan, whose model is looked for where it was; or a checkpoint folder, which is only ever changed into
            a DeciLM folder, as the other forms are what pruning writes.
        home: A key of `HOMES`; None: the first that can say it.
        out: The folder to write.

    Raises:
        UsageError: This home cannot say it, the model is gone, or `out` holds something else.
    """
    if source.is_dir():
        return _of_folder(registry.locate(str(source), "general"), home, out)
    plan = load_plan(source)
    model = locate_recorded(plan.model, plan.model_kind, plan.model_hash, str(source))
    chosen = _chosen(model, plan.widths, home, source)
    check_replaceable(out, HOMES[chosen].replaceable())
    with progress_bar(f"Writing {out}", len(model.shards)) as advance:
        if chosen == "decilm":
            _by_way_of_a_checkpoint(model, plan, out, advance)
        else:
            export(model, plan, out, plan.path, advance)
    return _told(chosen, out)


def _of_folder(model: ModelFolder, home: str | None, out: Path) -> Exported:
    chosen = _chosen(model, model.widths, home, model.path)
    if chosen != "decilm":
        raise UsageError(f"{model.path} is served as it is: {HOMES[chosen].needs}; give --to decilm for another form")
    check_replaceable(out, decilm_replaceable())
    return _told(chosen, write_decilm(model, out))


def _chosen(model: ModelFolder, widths: Widths, home: str | None, source: Path) -> str:
    """Raises UsageError where no home, or not the given one, can say these widths of this model."""
    refusals = {name: each.refusal(model, widths) for name, each in HOMES.items()}
    possible = [name for name, refusal in refusals.items() if refusal is None]
    if home is None and possible:
        return possible[0]
    if home in possible:
        return home
    reason = refusals[home] if home else "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    instead = f"give --to {' or '.join(possible)}" if possible else "plan with --allocation uniform"
    raise UsageError(f"{source} cannot be exported{f' to {home}' if home else ''}: {reason}; {instead}")


def _by_way_of_a_checkpoint(model: ModelFolder, plan: PruningPlan, out: Path, advance: Callable[[int], None]) -> None:
    """Through a checkpoint beside `out` that is gone afterwards; its files of weights become those of `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        write_decilm(export(model, plan, Path(scratch) / "checkpoint", plan.path, advance), out)


def _told(home: str, out: Path) -> Exported:
    serve = shlex.join(["vllm", "serve", str(out), *HOMES[home].options])
    return Exported(home, out, HOMES[home].needs, serve)

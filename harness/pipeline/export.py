"""Writes a plan, or a checkpoint that is there, in the form that one way of serving needs."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UsageError
from harness.core.progress import progress_bar
from harness.core.types.pruning import PruningPlan
from harness.core.written_folder import check_replaceable
from harness.models import registry
from harness.models.recorded import locate_recorded
from pruning.checkpoint import ModelFolder
from pruning.decilm import decilm_replaceable, layers_of, unsayable, write_decilm
from pruning.export import export, replaceable
from pruning.gguf_file import check_gguf_place, gguf_refusal, write_gguf
from pruning.plan_file import load_plan

Widths = tuple[int, ...]


@dataclass(frozen=True)
class Home:
    """A form of checkpoint.

    Attributes:
        needs: What serving it takes, one line.
        serve: The plain command that serves it; {} is the path.
        refusal: Why a model of these widths cannot have this form, None where it can.
        check_place: Raises UsageError where the path holds what may not be replaced.
        rewrite: Writes a checkpoint in this form to a path; None where the checkpoint has this form.
    """

    needs: str
    serve: str
    refusal: Callable[[ModelFolder, Widths], str | None]
    check_place: Callable[[Path], None]
    rewrite: Callable[[ModelFolder, Path], Path] | None = None


@dataclass(frozen=True)
class Exported:
    """What was written. home: a key of `HOMES`. path: of the folder, or of the one file. serve: the command for it."""

    home: str
    path: Path
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


def _checkpoint_place(out: Path) -> None:
    check_replaceable(out, replaceable())


def _decilm_place(out: Path) -> None:
    check_replaceable(out, decilm_replaceable())


HOMES: Mapping[str, Home] = {  # the one that needs least comes first
    "vllm": Home("vLLM or transformers, as they are", "vllm serve {}", _uneven, _checkpoint_place),
    "decilm": Home(
        "vLLM as it is, and --trust-remote-code for the configuration class in the folder; not transformers",
        "vllm serve {} --trust-remote-code",
        _not_decilm,
        _decilm_place,
        write_decilm,
    ),
    "plugin": Home(
        "vLLM where harness-prune is installed; in Python pruning.loader.load_pruned",
        "vllm serve {}",
        _not_plugin,
        _checkpoint_place,
    ),
    "gguf": Home(
        "llama.cpp, or a program that is built on it; not quantised",
        "llama-server -m {}",
        gguf_refusal,
        check_gguf_place,
        write_gguf,
    ),
}


def export_to(source: Path, home: str | None, out: Path) -> Exported:
    """Writes a plan, or a checkpoint of its own, as `home` needs it.

    Args:
        source: A plan, whose model is looked for where it was; or a checkpoint folder, which is only ever changed into
            a DeciLM folder or a GGUF file, as the other forms are what pruning writes.
        home: A key of `HOMES`; None: the first that can say it.
        out: The folder to write, or the file where the form is one.

    Raises:
        UsageError: This home cannot say it, the model is gone, or `out` holds something else.
    """
    if source.is_dir():
        return _of_folder(registry.locate(str(source), "general"), home, out)
    plan = load_plan(source)
    model = locate_recorded(plan.model, plan.model_kind, plan.model_hash, str(source))
    chosen = _chosen(model, plan.widths, home, source)
    HOMES[chosen].check_place(out)
    with progress_bar(f"Writing {out}", len(model.shards)) as advance:
        if rewrite := HOMES[chosen].rewrite:
            with _checkpoint_beside(out, model, plan, advance) as checkpoint:
                rewrite(checkpoint, out)
        else:
            export(model, plan, out, plan.path, advance)
    return _told(chosen, out)


def _of_folder(model: ModelFolder, home: str | None, out: Path) -> Exported:
    chosen = _chosen(model, model.widths, home, model.path)
    rewrite = HOMES[chosen].rewrite
    if rewrite is None:
        others = " or ".join(name for name, each in HOMES.items() if each.rewrite)
        raise UsageError(f"{model.path} is served as it is: {HOMES[chosen].needs}; give --to {others} for another form")
    HOMES[chosen].check_place(out)
    return _told(chosen, rewrite(model, out))


def _chosen(model: ModelFolder, widths: Widths, home: str | None, source: Path) -> str:
    """Raises UsageError where no home, or not the given one, can say these widths of this model."""
    asked = (home,) if home else tuple(HOMES)
    if found := next((name for name in asked if HOMES[name].refusal(model, widths) is None), None):
        return found
    refusals = {name: each.refusal(model, widths) for name, each in HOMES.items()}
    possible = [name for name, refusal in refusals.items() if refusal is None]
    reason = refusals[home] if home else "; ".join(f"{name}: {refusal}" for name, refusal in refusals.items())
    instead = f"give --to {' or '.join(possible)}" if possible else "plan with --allocation uniform"
    raise UsageError(f"{source} cannot be exported{f' to {home}' if home else ''}: {reason}; {instead}")


@contextmanager
def _checkpoint_beside(
    out: Path, model: ModelFolder, plan: PruningPlan, advance: Callable[[int], None]
) -> Iterator[ModelFolder]:
    """A checkpoint that is gone afterwards, on the disk of `out`, so that its files of weights can become those of
    `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        yield export(model, plan, Path(scratch) / "checkpoint", plan.path, advance)


def _told(home: str, out: Path) -> Exported:
    return Exported(home, out, HOMES[home].needs, HOMES[home].serve.format(shlex.quote(str(out))))

"""`harness push`: a pruned checkpoint on the Hub, with a card that says what was measured on it. Nothing goes anywhere
on a dry run.

The run directory may be a foreign one. Only files that are part of a checkpoint are sent, and none whose path leads out
of it.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.core import model_card
from harness.core.checkpoint_files import is_part
from harness.core.contained_files import file_below, leads_out, path_below, read_text_below
from harness.core.errors import StorageError, UsageError, first_line
from harness.core.run_file import figures_of, read_run
from harness.core.text import one_line
from harness.core.written_folder import LIST
from harness.publish.public_records import public_source
from pruning.side_files import pictures_of
from reports.model_card import render, subject
from reports.parts import Table
from tasks.registry import TASKS

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_BENCHMARKS = {
    "gsm8k_boxed": ("openai/gsm8k", "gsm8k"),
    "gsm8k_cot": ("openai/gsm8k", "gsm8k"),
}  # those that the Hub lists, in %
_MOST_CARD_BYTES = 2**22
_HARMFUL = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")  # may run code where they are loaded


@dataclass(frozen=True)
class Upload:
    """One file of the repository: a path on disk, or content that is made here."""

    name: str
    source: Path | str | bytes

    @property
    def content(self) -> Path | bytes:
        return self.source.encode() if isinstance(self.source, str) else self.source

    @property
    def size_bytes(self) -> int:
        content = self.content
        return content.stat().st_size if isinstance(content, Path) else len(content)


@dataclass(frozen=True)
class HubUpload:
    """`name`: of the repository, where none is asked for; in the namespace of who is signed in. left_out: files of the
    checkpoint that are not sent, each with the reason.
    """

    variant: str
    name: str
    licence: str | None
    files: tuple[Upload, ...]
    left_out: tuple[tuple[str, str], ...] = ()


def prepare_upload(folder: Path, variant: str | None) -> HubUpload:
    """Every file that would be pushed of a run.

    Raises:
        UsageError: There is no checkpoint, it leads out of the run directory, or it is no safetensors.
    """
    run = read_run(folder)
    chosen = _chosen(run, variant, folder)
    checkpoint = path_below(folder, chosen["checkpoint"])
    if file_below(checkpoint, "config.json") is None:
        raise UsageError(f"{checkpoint} holds no checkpoint (any more); run again, or give another --variant")
    card = read_text_below(checkpoint, "README.md", _MOST_CARD_BYTES, "replace") or ""
    kept, left_out = _sorted_out(checkpoint, card)
    own = model_card.read(card)
    with figures_of(folder):
        made = (Upload("README.md", render(run, chosen["name"], own)), *_eval_results(run, chosen))
    known = model_card.inherited(own.front)
    licence = known.get("license_name") or known.get("license")
    name = re.sub(r"[^\w.-]+", "-", f"{Path(str(run['model'])).name}-{chosen['name']}").strip("-.")
    return HubUpload(chosen["name"], name, str(licence) if licence else None, (*made, *kept), left_out)


def _sorted_out(checkpoint: Path, card: str) -> tuple[tuple[Upload, ...], tuple[tuple[str, str], ...]]:
    """The files of a checkpoint that are sent beside the card, and the others with the reason."""
    entries = sorted(path for path in checkpoint.rglob("*") if path.is_symlink() or not path.is_dir())
    names = [path.relative_to(checkpoint).as_posix() for path in entries]
    if harmful := [name for name in names if name.endswith(_HARMFUL) and not name.startswith(".")]:
        raise UsageError(
            f"{checkpoint} has {', '.join(harmful[:5])}, which can run code where it is loaded; push safetensors only"
        )
    shown, made_here = set(pictures_of(checkpoint, card)), ("README.md", LIST)
    reasons = {name: _reason_to_leave_out(checkpoint, name, shown) for name in names if name not in made_here}
    kept = tuple(
        Upload(name, public_source(path_below(checkpoint, name))) for name, reason in reasons.items() if reason is None
    )
    return kept, tuple((name, reason) for name, reason in reasons.items() if reason is not None)


def _reason_to_leave_out(checkpoint: Path, name: str, shown: Container[str]) -> str | None:
    """None for a file that is sent. shown: pictures of the card."""
    if not ((is_part(name) or name in shown) and name.isprintable()):
        return "no part of a checkpoint"
    if leads_out(checkpoint, name):
        return "leads out of the checkpoint"
    return None if path_below(checkpoint, name).is_file() else "not a regular file"


def _chosen(run: Mapping[str, Any], variant: str | None, folder: Path) -> Mapping[str, Any]:
    written = {v["name"]: v for v in run["variants"] if v["checkpoint"] and _is_made_here(v)}
    if not written and any(v["checkpoint"] for v in run["variants"]):
        raise UsageError(f"{folder} holds no checkpoint that was pruned or fine-tuned, only the model as it was given")
    if variant and variant not in written:
        known = ", ".join(written) or "none"
        raise UsageError(f"{folder} has no checkpoint of {variant!r}; there are checkpoints of {known}")
    if not written:
        raise UsageError(f"{folder} has no checkpoint; make one with `harness run`, see the commands in its report")
    recommended = subject(run, None)["name"]
    found: Mapping[str, Any] = written[variant or (recommended if recommended in written else next(iter(written)))]
    return found


def _is_made_here(variant: Mapping[str, Any]) -> bool:
    return variant.get("method") != "dense" or bool(variant.get("recovered"))


def _eval_results(run: Mapping[str, Any], chosen: Mapping[str, Any]) -> Iterator[Upload]:
    """The Hub's own form for the benchmarks that it lists, of whole test splits only: a part would look like the
    whole.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    for task, e in chosen["eval"].items():
        if task in _BENCHMARKS and e["n"] == TASKS[task].items:
            dataset, task_id = _BENCHMARKS[task]
            low, high = (100 * e[key] for key in ("ci_low", "ci_high"))
            notes = f"{task}, greedy, n = {e['n']}, 95 % interval {low:.1f} to {high:.1f}"
            entry = EvalResultEntry(dataset, task_id, round(100 * e["value"], 2), date=run["created"][:10], notes=notes)
            yield Upload(
                f".eval_results/{task}.yaml", yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
            )


def push(upload: HubUpload, repo: str, public: bool = False) -> str:
    """Uploads in one commit.

    Args:
        upload: From `prepare_upload`.
        repo: USER/NAME; it is made where it does not exist.
        public: Whether everybody may read it.

    Returns:
        The address of the commit.

    Raises:
        UsageError: Nobody is signed in, or the repository is public and was not meant to be.
        StorageError: With the Hub's own word.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    operations = [CommitOperationAdd(file.name, file.content) for file in upload.files]
    try:
        api = HfApi(library_name="harness-prune")
        name = _repository(api, repo, public)
        done = api.create_commit(name, operations, commit_message=f"{one_line(upload.variant)}, by harness")
    except UsageError:
        raise
    except LocalTokenNotFoundError as error:
        raise UsageError("not signed in to the Hub; `hf auth login`, or set HF_TOKEN") from error
    except HFValidationError as error:
        raise UsageError(f"{repo} is not a repository name; give --to USER/NAME") from error
    except Exception as error:  # the transport has errors of its own
        raise StorageError(f"the Hub did not take {repo}: {first_line(error)}") from error
    return str(done.commit_url)


def _repository(api: HfApi, repo: str, public: bool) -> str:
    """The full name of the repository, made where it is not there yet; a public one only if that was asked for."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return api.create_repo(repo, private=not public).repo_id
    except HfHubHTTPError:  # as it is there already; where it is not, the next line raises the same again
        pass
    name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
    if not public and not api.model_info(name).private:
        raise UsageError(f"{name} is there already and public; give --public, or another --to")
    return name


def upload_table(upload: HubUpload, repo: str, public: bool = False) -> Table:
    """What is sent and what is left out."""
    rows = tuple((file.name, f"{file.size_bytes:,}") for file in upload.files)
    others = tuple((name, f"left out: {reason}") for name, reason in upload.left_out)
    seen = "everybody may read it" if public else "private"
    note = f"Licence: {upload.licence or 'none known; give one on the Hub before others use it'}."
    title = f"What would be pushed to {repo}, {seen}: {upload.variant}"
    return Table(title, ("file", "bytes"), rows + others, note)

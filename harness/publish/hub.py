"""`harness push`: a pruned checkpoint on the Hub, with a card that says what was measured on it. Nothing goes anywhere
on a dry run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.core import model_card
from harness.core.errors import StorageError, UsageError, first_line
from reports.build import read_run
from reports.model_card import render, subject
from reports.parts import Table
from tasks.registry import TASKS

_BENCHMARKS = {
    "gsm8k_boxed": ("openai/gsm8k", "gsm8k"),
    "gsm8k_cot": ("openai/gsm8k", "gsm8k"),
}  # those that the Hub lists, in %
_HARMFUL = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".py")  # may run code where they are loaded


@dataclass(frozen=True)
class Upload:
    """One file of the repository: a path on disk, or text that is made here."""

    name: str
    source: Path | str

    @property
    def content(self) -> Path | bytes:
        return self.source if isinstance(self.source, Path) else self.source.encode()

    @property
    def size_bytes(self) -> int:
        return self.source.stat().st_size if isinstance(self.source, Path) else len(self.source.encode())


@dataclass(frozen=True)
class HubUpload:
    """`name`: of the repository, where none is asked for; in the namespace of who is signed in."""

    variant: str
    name: str
    licence: str | None
    files: tuple[Upload, ...]


def prepare_upload(folder: Path, variant: str | None) -> HubUpload:
    """Every file that would be pushed of a run; raises UsageError where there is no checkpoint, or one that is no
    safetensors.
    """
    run = read_run(folder)
    chosen = _chosen(run, variant, folder)
    checkpoint = (folder / chosen["checkpoint"]).resolve()
    if not (checkpoint / "config.json").exists():
        raise UsageError(f"{checkpoint} holds no checkpoint (any more); run again, or give another --variant")
    files = sorted(
        path for path in checkpoint.rglob("*") if path.is_file() and not _hidden(path.relative_to(checkpoint))
    )
    if harmful := [path.name for path in files if path.suffix in _HARMFUL]:
        raise UsageError(
            f"{checkpoint} has {', '.join(harmful)}, which can run code where it is loaded; push safetensors only"
        )
    readme = checkpoint / "README.md"
    own = model_card.read(readme.read_text(encoding="utf-8", errors="replace") if readme.exists() else "")
    card = Upload("README.md", render(run, chosen["name"], own))
    kept = tuple(Upload(str(path.relative_to(checkpoint)), path) for path in files if path != readme)
    licence = own.front.get("license_name") or own.front.get("license")
    name = re.sub(r"[^\w.-]+", "-", f"{Path(str(run['model'])).name}-{chosen['name']}").strip("-.")
    return HubUpload(
        chosen["name"], name, str(licence) if licence else None, (card, *_eval_results(run, chosen), *kept)
    )


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


def _hidden(path: Path) -> bool:
    """Files whose names begin with a dot are private: keys, version control, locks."""
    return any(part.startswith(".") for part in path.parts)


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


def push(upload: HubUpload, repo: str, private: bool) -> str:
    """Uploads in one commit and returns its address; raises StorageError with the Hub's own word."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError, LocalTokenNotFoundError

    operations = [CommitOperationAdd(file.name, file.content) for file in upload.files]
    try:
        api = HfApi(library_name="harness-prune")
        made = api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(made.repo_id, operations, commit_message=f"{upload.variant}, by harness")
    except LocalTokenNotFoundError as error:
        raise UsageError("not signed in to the Hub; `hf auth login`, or set HF_TOKEN") from error
    except HFValidationError as error:
        raise UsageError(f"{repo} is not a repository name; give --to USER/NAME") from error
    except Exception as error:  # the transport has errors of its own
        raise StorageError(f"the Hub did not take {repo}: {first_line(error)}") from error
    return str(done.commit_url)


def upload_table(upload: HubUpload, repo: str) -> Table:
    rows = tuple((file.name, f"{file.size_bytes:,}") for file in upload.files)
    note = f"Licence: {upload.licence or 'none known; give one on the Hub before others use it'}."
    return Table(f"What would be pushed to {repo}: {upload.variant}", ("file", "bytes"), rows, note)

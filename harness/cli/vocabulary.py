"""`harness vocabulary`: the entries of the vocabulary that a task does not need."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import CHAT, DEBUG, DRY_RUN, ENGINE, JSON, OUT, PATH, TASK, SettingsCommand, check_used
from harness.cli.output import answer, stdout_to_stderr

if TYPE_CHECKING:
    from harness.pipeline.vocabulary import TrimmedVocabulary


@click.command("vocabulary", cls=SettingsCommand, settings=(*TASK, *CHAT, *ENGINE, "trust_data", "threads"))
@click.argument("model", shell_complete=complete_models)
@click.option("--size", type=int, required=True, help="Entries that stay, rounded up to a multiple of 64.")
@click.option(
    "--texts",
    type=PATH,
    multiple=True,
    help="JSON Lines with `text`, and `prompt` before it, as a run's samples: more texts of the task, such as the "
    "model's own answers.",
)
@click.option("--plan", type=PATH, help="A plan for MODEL's FFN neurons to carry out as well.")
@click.option("--out", type=OUT, required=True, help="Checkpoint folder to write.")
@click.option("--verify", is_flag=True, help="Load it in transformers and vLLM and compare with the original.")
@DRY_RUN
@JSON
@DEBUG
def vocabulary_command(
    model: str,
    size: int,
    texts: tuple[Path, ...],
    plan: Path | None,
    out: Path,
    verify: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the checkpoint of MODEL that keeps SIZE entries of its vocabulary, those that a task needs most.

    \b
    harness vocabulary smollm2-135m --task gsm8k --size 8192 --out checkpoint
    harness vocabulary ./my-model --task mini_math --size 8192 --plan plan.safetensors --out checkpoint

    Training texts of the tasks decide, then general text, then the tokenizer's own order. Bytes, special and added
    tokens stay, so that every text can still be written and read; a text with removed entries takes more tokens.
    """
    from harness.config.settings import load_config
    from harness.engine.engine_settings import engine_settings
    from harness.engine.library_settings import library_settings
    from harness.pipeline.vocabulary import VocabularyRequest, trim_vocabulary

    check_used(options, ENGINE, "--verify", verify)
    config = load_config(None, {**options, "model": model})
    request, verify_by = VocabularyRequest(size, texts, plan), engine_settings(config) if verify else None
    with stdout_to_stderr(), library_settings(config.threads, config.trust_data):
        found = trim_vocabulary(config, request, out, dry_run, verify_by)
    if as_json:
        answer(_document(found, out, dry_run), True)
    else:
        answer(_lines(found, out, dry_run), False)


def _document(found: TrimmedVocabulary, out: Path, dry_run: bool) -> dict[str, Any]:
    verified = {"verified": asdict(found.verified)} if found.verified else {}
    return {
        "checkpoint": None if dry_run else str(out),
        "vocabulary": found.vocabulary,
        "parameters": found.parameters,
        "weight_bytes": found.weight_bytes,
        "tokens_per_text": {name: asdict(each) for name, each in found.tokens_per_text.items()},
        **verified,
    }


def _lines(found: TrimmedVocabulary, out: Path, dry_run: bool) -> dict[str, str]:
    sizes = {name: _change(*getattr(found, name)) for name in ("vocabulary", "parameters", "weight_bytes")}
    texts = {
        f"tokens per text, {name}": f"{each.before:.1f} -> {each.after:.1f} ({each.after / each.before - 1:+.1%}, "
        f"{each.texts} texts that were not counted)"
        for name, each in found.tokens_per_text.items()
    }
    verified = {"verified": str(asdict(found.verified))} if found.verified else {}
    return {"would write" if dry_run else "checkpoint": str(out), **sizes, **texts, **verified}


def _change(before: int, after: int) -> str:
    return f"{before:,} -> {after:,} ({after / before - 1:+.1%})"

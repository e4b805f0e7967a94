"""`harness chat`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import rich_click as click

from harness.cli.completion import complete_models
from harness.cli.options import CHAT, DEBUG, ENGINE, JSON, SettingsCommand
from harness.cli.output import answer, print_lines, print_table, stdout_to_stderr
from harness.cli.restart import restart_preloaded

if TYPE_CHECKING:
    from harness.pipeline.side_by_side import Answer


@click.command("chat", cls=SettingsCommand, settings=(*CHAT, "dtype", *ENGINE, "threads"))
@click.argument("dense", shell_complete=complete_models)
@click.argument("pruned", shell_complete=complete_models)
@click.option("--prompt", help="Answer this and stop. Default: every line of standard input.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, help="Tokens of an answer. Default: 256.")
@JSON
@DEBUG
def chat_command(dense: str, pruned: str, prompt: str | None, max_tokens: int, as_json: bool, **options: Any) -> None:
    """Show the answers of two models, DENSE and PRUNED, side by side.

    \b
    harness chat tiny-math runs/x/checkpoint --prompt "Tom has 3 apples and buys 4. How many are there?"
    harness chat qwen-1.5b runs/x/checkpoint            questions one by one, until Ctrl-D
    harness chat A B < questions.txt > answers.txt

    Answers are greedy and in each model's chat template where it has one. Each prompt stands for itself.
    """
    from harness.config.settings import load_config
    from harness.pipeline.side_by_side import answering

    config = load_config(None, {**options, "model": dense})
    restart_preloaded(config.dtype)
    told: list[dict[str, Any]] = []
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        with stdout_to_stderr():
            ask = stack.enter_context(answering(config, (dense, pruned), max_tokens))
        for question in [prompt] if prompt is not None else _lines():
            found = _answers(ask, question, prompt is None)
            if as_json:
                told.append({"prompt": question, "answers": [asdict(each) for each in found]})
            elif found:
                _show(question, found)
    if as_json:
        answer({"chat": told}, True)


def _lines() -> Iterator[str]:
    """Lines of standard input that are not empty; on a terminal each is asked for."""
    while True:
        if sys.stdin.isatty():
            click.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")


def _answers(ask: Callable[[str], list[Answer]], question: str, goes_on: bool) -> list[Answer]:
    """A question that cannot be answered ends the command only where it is the only one."""
    from harness.core.errors import UsageError
    from harness.core.progress import say

    try:
        with stdout_to_stderr():
            return ask(question)
    except UsageError as error:
        if not goes_on:
            raise
        say(f"error: {error}")
        return []


def _show(question: str, found: Sequence[Answer]) -> None:
    """Two columns on a terminal, one below the other elsewhere; nothing in an answer is obeyed by the terminal."""
    from reports.parts import Table

    heads = [f"{each.model}, {each.tokens} tokens{'' if each.ended else ', cut off'}" for each in found]
    same = "Both answers are the same." if len({each.text for each in found}) == 1 else ""
    if sys.stdout.isatty():
        print_table(Table(question, tuple(heads), (tuple(each.text.strip() for each in found),), same))
        return
    lines = [f"> {question}"]
    for head, each in zip(heads, found, strict=True):
        lines += [f"{head}:", *(f"    {line}" for line in each.text.strip().split("\n"))]
    print_lines([*lines, *filter(None, [same]), ""])

"""docs/commands.md: the help page of every command, as a terminal of 80 columns shows it. `python
scripts/write_commands.py`
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = "# Commands\n\nMade by `python scripts/write_commands.py`; a test keeps it true.\n"


def text() -> str:
    from click.testing import CliRunner

    from harness.cli.main import cli

    def page(words: tuple[str, ...]) -> str:
        shown = CliRunner().invoke(cli, [*words, "--help"], prog_name="harness", terminal_width=80).output
        body = "\n".join(line.rstrip() for line in shown.strip("\n").splitlines())
        return f"\n## {' '.join(('harness', *words))}\n\n```text\n{body}\n```\n"

    os.environ["NO_COLOR"] = "1"
    return HEAD + "".join(page(words) for words in ((), *_commands(cli)))


def _commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield from _commands(command, (*above, name)) if hasattr(command, "commands") else [(*above, name)]


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

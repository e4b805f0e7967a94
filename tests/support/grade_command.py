"""`harness grade` in this process, on rows that a test gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from harness.cli.main import cli


def grade(
    tmp_path: Path, task: str, rows: list[Any], *options: str
) -> tuple[Result, list[dict[str, Any]], dict[str, Any]]:
    """The command's result, the rows of --out and the summary; a row that is a text is written as it is."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    result = CliRunner().invoke(cli, ["grade", "--task", task, str(source), "--out", str(out), *options])
    if result.exit_code:
        return result, [], {}
    graded = [json.loads(line) for line in out.read_text().splitlines()]
    return result, graded, json.loads(result.stdout.strip().splitlines()[-1])

"""report.csv: every figure of a run as one row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from harness.core.run_rows import HEAD, rows


def csv_text(run: Mapping[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for row in rows(run):
        writer.writerow(["" if value is None else _harmless(value) for value in row])
    return out.getvalue()


def _harmless(value: Any) -> Any:
    """Quotes text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

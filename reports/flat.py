"""Every figure of a run as one row: for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

HEAD = ("variant", "method", "metric", "ratio_neurons", "task", "quantity", "value", "ci_low", "ci_high", "n")


def csv_text(run: Mapping[str, Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for row in rows(run):
        writer.writerow(["" if value is None else _harmless(value) for value in row])
    return out.getvalue()


def rows(run: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    for v in run["variants"]:
        named = (v["name"], v["method"], v["metric"], v["ratio_neurons"])
        for task, e in v["eval"].items():
            yield (*named, task, e["metric"], e["value"], e["ci_low"], e["ci_high"], e["n"])
            yield (*named, task, "failure_rate", e["failure_rate"], e.get("failure_low"), e.get("failure_high"), e["n"])
            yield from ((*named, task, f"failure:{kind}", rate, None, None, e["n"]) for kind, rate in e["failures"].items())
        for quantity in ("parameters", "weight_bytes"):
            yield (*named, None, quantity, v[quantity], None, None, None)
        for r in v["serving"]["concurrency"] if v["serving"] else ():
            yield (*named, None, f"output_tok_s at {r['concurrency']}", r["output_tok_s"], None, None, r["repeats"])
    of = {v["name"]: (v["name"], v["method"], v["metric"], v["ratio_neurons"]) for v in run["variants"]}
    for c in run["comparisons"]:
        what = f"difference from {c['baseline']}"
        yield (*of.get(c["variant"], (c["variant"], None, None, None)), c["task"], what, c["difference"], c["ci_low"], c["ci_high"], c["n"])
    for r in run.get("speed_ratios", ()):
        what = f"{r['quantity']} over {r['baseline']} at {r['concurrency']}"
        yield (*of.get(r["variant"], (r["variant"], None, None, None)), None, what, r["ratio"], r["ci_low"], r["ci_high"], r["pairs"])


def _harmless(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula becomes plain text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

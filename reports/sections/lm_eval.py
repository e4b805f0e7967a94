"""All figures of lm-eval's own tasks and groups, as lm-eval reports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports.parts import Section, Table


def section(run: Mapping[str, Any]) -> Section:
    return Section(name="lm-eval", title="Figures of lm-eval", tables=(lm_eval_table(run),))


def lm_eval_table(run: Mapping[str, Any]) -> Table:
    """One row per variant, task or group, metric and filter; the one that counts is marked."""
    head = ("variant", "task", "metric", "filter", "n", "value", "standard error", "counts")
    rows = tuple(row for variant in run["variants"] for row in _rows(variant))
    return Table("Figures of lm-eval", head, rows, "Values and standard errors are lm-eval's own; a group is its mean.")


def _rows(variant: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for task, e in variant["eval"].items():
        for found in e.get("metrics") or ():
            counts = (found["metric"], found["filter"]) == (e["metric"], e.get("filter"))
            yield (variant["name"], task, *_figures(found, e["n"]), "yes" if counts else "")
    for group, g in (variant.get("groups") or {}).items():
        yield from ((variant["name"], group, *_figures(found, g["n"]), "") for found in g["metrics"])


def _figures(found: Mapping[str, Any], n: int) -> tuple[str, ...]:
    error = "" if found["stderr"] is None else f"{found['stderr']:.4f}"
    return found["metric"], found["filter"], str(n), f"{found['value']:.4f}", error

"""The first model against the last in a dozen rows, and the size of every variant."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.core.labels import width_text
from harness.core.types.evaluation import LIKELIHOOD_METRICS
from reports.figures import interval, measured, mebibytes, percent
from reports.parts import Section, Table
from reports.sections.serving import ratio_text


def section(run: Mapping[str, Any]) -> Section:
    if run.get("sweep") or run.get("dissociation"):
        return Section("summary", "Summary")
    return Section("summary", "Summary", tables=(summary_table(run), size_table(run)))


def summary_table(run: Mapping[str, Any]) -> Table:
    """The first variant against the outcome; for a single variant just its figures."""
    first, last = run["variants"][0], outcome(run)
    changes = {
        c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (first["name"], last["name"])
    }
    rows = [
        _fall(
            "FFN width",
            first,
            last,
            lambda v: sum(v["intermediate_sizes"]) / len(v["intermediate_sizes"]),
            "{:,.0f}".format,
        )
    ]
    rows.append(_fall("parameters", first, last, lambda v: v["parameters"], "{:,}".format))
    rows.append(_fall("weights", first, last, lambda v: v["weight_bytes"], mebibytes))
    for task, before in first["eval"].items():
        after, change = last["eval"][task], changes.get(task)
        metric = before["metric"]
        difference = "{} ({} to {})".format(*interval(change)) if change else ""
        rows.append(
            (
                f"{task} {metric}, n={before['n']}",
                measured(metric, before["value"]),
                measured(metric, after["value"]),
                difference,
            )
        )
        if metric not in LIKELIHOOD_METRICS:
            rows.append(
                (f"{task} generation failures", percent(before["failure_rate"]), percent(after["failure_rate"]), "")
            )
    for before, after in _serving_pairs(first, last):
        speed = _speed(run, (last["name"], first["name"], before["concurrency"]))
        rows.append(
            (
                f"output tok/s at concurrency {before['concurrency']}",
                f"{before['output_tok_s']:.0f}",
                f"{after['output_tok_s']:.0f}",
                speed,
            )
        )
    if first is last:
        return Table("Summary", ("what", first["name"]), tuple(row[:2] for row in rows))
    note = "Change of accuracy in points, of perplexity as a factor, with a 95 % interval, paired by item."
    return Table("Summary", ("what", first["name"], last["name"], "change"), tuple(rows), note if changes else "")


def _speed(run: Mapping[str, Any], pair: tuple[str, str, int]) -> str:
    """The ratio of speeds over pairs of passes, as everywhere else; pair: variant, baseline, concurrency."""
    for r in run.get("speed_ratios", ()):
        if r["quantity"] == "output_tok_s" and (r["variant"], r["baseline"], r["concurrency"]) == pair:
            return ratio_text(r)
    return ""


def outcome(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first pruned variant, or its fine-tuned version; the last variant where nothing was pruned."""
    by_name = {v["name"]: v for v in run["variants"]}
    pruned = next((v for v in run["variants"] if v["method"] != "dense"), run["variants"][-1])
    found: Mapping[str, Any] = by_name.get(f"{pruned['name']}-recovered", pruned)
    return found


def _fall(
    name: str, first: Any, last: Any, value: Callable[[Any], float], text: Callable[[Any], str]
) -> tuple[str, ...]:
    return (name, text(value(first)), text(value(last)), f"{100 * (value(last) / value(first) - 1):+.1f} %")


def _serving_pairs(first: Any, last: Any) -> list[tuple[Any, Any]]:
    if not (first["serving"] and last["serving"]):
        return []
    return list(zip(first["serving"]["concurrency"], last["serving"]["concurrency"], strict=True))


def size_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "FFN width", "ratio requested", "of neurons", "of parameters", "parameters", "weights")
    rows = [
        (
            v["name"],
            width_text(v["intermediate_sizes"]),
            percent(v["ratio_requested"]),
            percent(v["ratio_neurons"], 2),
            percent(v["ratio_parameters"], 2),
            f"{v['parameters']:,}",
            mebibytes(v["weight_bytes"]),
        )
        for v in run["variants"]
    ]
    return Table(
        "Size",
        head,
        tuple(rows),
        "Ratios are of FFN neurons unless said otherwise; widths are multiples of the alignment.",
    )

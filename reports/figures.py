"""Numbers of run.json as text: the tables and sentences that HTML, Markdown and the terminal share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def percent(value: float | None, digits: int = 1) -> str:
    return "unknown" if value is None else f"{100 * value:.{digits}f} %"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


LIKELIHOODS = ("perplexity", "bits_per_byte")  # lower is better, no share of right answers
_UNITS = {"perplexity": "", "bits_per_byte": " bits per byte"}  # of a difference; points otherwise


def measured(metric: str, value: float | None) -> str:
    """A task's figure: a percentage, or a perplexity, bits per byte and what else is no share as it is."""
    if value is None:
        return "unknown"
    return f"{value:,.3f}" if metric in LIKELIHOODS or not 0 <= value <= 1 else percent(value)


def changed(metric: str, value: float) -> str:
    """A difference against dense: points, a perplexity's factor (the difference is of its logarithm), or bits per byte."""
    if metric == "perplexity":
        return f"x{math.exp(value):.3f}"
    return f"{value:+.3f}" if metric == "bits_per_byte" else points(value)


def unit(metric: str) -> str:
    """Of a difference between two values of a metric."""
    return _UNITS.get(metric, " points")


def mebibytes(value: int) -> str:
    return f"{value / 2**20:.2f} MiB" if value < 2**30 else f"{value / 2**30:.2f} GiB"


def tables(run: Mapping[str, Any]) -> list[Table]:
    """All tables of a run that have something to show, the summary first."""
    made = [
        summary_table(run), size_table(run), accuracy_table(run), difference_table(run), failure_table(run),
        provenance_table(run),
    ]  # fmt: skip
    return [table for table in made if table.rows]


def summary_table(run: Mapping[str, Any]) -> Table:
    """First variant against the one that matters; for a single variant just its figures."""
    first, last = run["variants"][0], _outcome(run)
    changes = {c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (first["name"], last["name"])}
    rows = [_fall("FFN width", first, last, lambda v: sum(v["intermediate_sizes"]) / len(v["intermediate_sizes"]), "{:,.0f}".format)]
    rows.append(_fall("parameters", first, last, lambda v: v["parameters"], "{:,}".format))
    rows.append(_fall("weights", first, last, lambda v: v["weight_bytes"], mebibytes))
    for task, before in first["eval"].items():
        after, change = last["eval"][task], changes.get(task)
        metric = before["metric"]
        difference = "{} ({} to {})".format(*interval(change)) if change else ""
        rows.append((f"{task} {metric}, n={before['n']}", measured(metric, before["value"]), measured(metric, after["value"]), difference))
        if metric not in LIKELIHOODS:
            rows.append((f"{task} generation failures", percent(before["failure_rate"]), percent(after["failure_rate"]), ""))
    for before, after in _serving_pairs(first, last):
        speed = f"{after['output_tok_s'] / before['output_tok_s']:.2f}x"
        rows.append(
            (f"output tok/s, {before['concurrency']} at a time", f"{before['output_tok_s']:.0f}", f"{after['output_tok_s']:.0f}", speed)
        )
    if first is last:
        return Table("Summary", ("what", first["name"]), tuple(row[:2] for row in rows))
    note = "Change of accuracy in points, of perplexity as a factor, with a 95 % interval, paired by item."
    return Table("Summary", ("what", first["name"], last["name"], "change"), tuple(rows), note if changes else "")


def _outcome(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first pruned variant, fine-tuned where it was; the last variant where nothing was pruned."""
    by_name = {v["name"]: v for v in run["variants"]}
    pruned = next((v for v in run["variants"] if v["method"] != "dense"), run["variants"][-1])
    found: Mapping[str, Any] = by_name.get(f"{pruned['name']}-recovered", pruned)
    return found


def _fall(name: str, first: Any, last: Any, value: Callable[[Any], float], text: Callable[[Any], str]) -> tuple[str, ...]:
    return (name, text(value(first)), text(value(last)), f"{100 * (value(last) / value(first) - 1):+.1f} %")


def interval(comparison: Mapping[str, Any]) -> tuple[str, ...]:
    """Difference and the ends of its interval as text."""
    return tuple(changed(comparison["metric"], comparison[key]) for key in ("difference", "ci_low", "ci_high"))


def _serving_pairs(first: Any, last: Any) -> list[tuple[Any, Any]]:
    if not (first["serving"] and last["serving"]):
        return []
    return list(zip(first["serving"]["concurrency"], last["serving"]["concurrency"], strict=True))


def size_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "FFN width", "ratio asked", "of neurons", "of parameters", "parameters", "weights")
    rows = [
        (
            v["name"], _widths(v["intermediate_sizes"]), percent(v["ratio_requested"]), percent(v["ratio_neurons"], 2),
            percent(v["ratio_parameters"], 2), f"{v['parameters']:,}", mebibytes(v["weight_bytes"]),
        )
        for v in run["variants"]
    ]  # fmt: skip
    return Table("Size", head, tuple(rows), "Ratios are of FFN neurons unless said otherwise; widths are rounded down to the alignment.")


def accuracy_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "task", "metric", "n", "value", "95 % interval", "failures", "tokens per answer")
    rows = [
        (
            v["name"], task, e["metric"], str(e["n"]), measured(e["metric"], e["value"]),
            f"{measured(e['metric'], e['ci_low'])} to {measured(e['metric'], e['ci_high'])}",
            percent(e["failure_rate"]), "unknown" if e["tokens_per_answer"] is None else f"{e['tokens_per_answer']:.1f}",
        )
        for v in run["variants"]
        for task, e in v["eval"].items()
    ]  # fmt: skip
    return Table(
        "Accuracy",
        head,
        tuple(rows),
        "The first task is the target, the others are off-target. Intervals are Wilson's, over texts "
        "for perplexity and bits per byte (lower is better). failures: any kind but a wrong answer.",
    )


def difference_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "against", "task", "n", "points", "95 % interval (paired)", "right to wrong", "wrong to right", "McNemar p")
    rows = []
    for c in run["comparisons"]:
        difference, low, high = interval(c)
        flips = ("", "", "") if c["mcnemar_p"] is None else (str(c["lost"]), str(c["gained"]), f"{c['mcnemar_p']:.2g}")
        rows.append((c["variant"], c["baseline"], c["task"], str(c["n"]), difference, f"{low} to {high}", *flips))
    return Table("Item by item", head, tuple(rows))


def failure_table(run: Mapping[str, Any]) -> Table:
    evals = [
        (v["name"], task, e["failures"], e.get("trap_rate"))
        for v in run["variants"]
        for task, e in v["eval"].items()
        if e["metric"] not in LIKELIHOODS
    ]
    kinds = evals[0][2] if evals else {}
    seen = [kind for kind in kinds if any(f[kind] is None or f[kind] > 0 for _, _, f, _ in evals)]
    rows = [(name, task, *(percent(f[kind]) for kind in seen), percent(trap)) for name, task, f, trap in evals]
    note = "One answer can have several kinds; kinds never seen are left out. trap: the paper's count, answers of at least 1024 tokens."
    return Table("Failures by kind", ("variant", "task", *seen, "trap"), tuple(rows), note)


def provenance_table(run: Mapping[str, Any]) -> Table:
    pruned = [v for v in run["variants"] if v["method"] != "dense"]
    rows = [
        ("model", run["model"]),
        ("command", run["command"]),
        ("created", run["created"]),
        *_calibration_rows(run["calibration"]),
        *((v["name"], _how(v)) for v in pruned),
        ("versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())),
        ("hardware", json.dumps(run["hardware"])),
    ]
    return Table("Where this comes from", ("what", "value"), tuple(rows))


def _calibration_rows(calibration: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not calibration:
        return []
    return [
        ("target calibration", f"{calibration['n_target']} prompts of {calibration['target']}"),
        ("distractors", f"{calibration['n_distractor']} prompts of {', '.join(calibration['distractors'])}"),
        ("tokens scored", calibration["tokens"]),
        ("score", calibration.get("formula") or "none"),
    ]


def _how(v: Mapping[str, Any]) -> str:
    """How a variant was pruned, in words."""
    refit = ", remaining down_proj columns re-fitted" if v["compensated"] else ""
    metric = f", metric {v['metric']}" if v["metric"] else ""
    return f"method {v['method']}{metric}{refit}, {v['allocation']} widths, alignment {v['alignment']}, seed {v['seed']}"


def verdict(run: Mapping[str, Any]) -> list[str]:
    """What the figures say, in a sentence each; nothing where nothing was compared."""
    if not run["comparisons"]:
        return []
    dense = run["variants"][0]
    pruned = next((v for v in run["variants"][1:] if v["method"] != "dense" and not v["recovered"]), None)
    if pruned is None or dense["method"] != "dense":
        return []
    found = {c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (dense["name"], pruned["name"])}
    target = found[run["task"]]
    before, after = (measured(target["metric"], v["eval"][run["task"]]["value"]) for v in (dense, pruned))
    difference, low, high = interval(target)
    lines = [
        f"Removing {percent(pruned['ratio_neurons'])} of the FFN neurons ({percent(pruned['ratio_parameters'])} of all parameters) "
        f"changes {run['task']} from {before} to {after}: {difference}{unit(target['metric'])}, "
        f"95 % interval {low} to {high}, n = {target['n']}."
    ]
    others = [f"{task} {interval(c)[0]}{unit(c['metric'])}" for task, c in found.items() if task != run["task"]]
    if others:
        lines.append(f"Off target: {', '.join(others)}.")
    return lines


def _widths(sizes: list[int]) -> str:
    return str(sizes[0]) if len(set(sizes)) == 1 else f"{min(sizes)} to {max(sizes)}"


FILTERS: Mapping[str, Callable[..., str]] = {"percent": percent, "points": points, "mebibytes": mebibytes}

"""The paper's claims with their verdicts, how far each arm can be pruned, and the cells that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import percent
from reports.parts import Section, Table

_MOST = 12  # sentences of a claim's details shown


def section(run: Mapping[str, Any]) -> Section:
    if not run.get("sweep"):
        return Section("claims", "The paper's claims")
    shown = (claims_table(run), threshold_table(run), failed_table(run))
    return Section("claims", "The paper's claims", tables=shown, folded=(rules_table(run),))


def sweep_sentences(run: Mapping[str, Any]) -> list[str]:
    """One line per claim."""
    return [f"{c['claim']}: {c['verdict']}{_reason(c)}." for c in run.get("claims", ())]


def _reason(claim: Mapping[str, Any]) -> str:
    if claim["value"] is None:
        return f" ({'; '.join(claim['details'][:1])})"
    wanted = f"; {claim['n_needed']:,} would decide" if claim["n_needed"] else ""
    return f" ({claim['figure']} {_figure(claim)}, n = {claim['n']:,}{wanted})"


def _figure(claim: Mapping[str, Any]) -> str:
    value, low, high = (_number(claim["unit"], claim[key]) for key in ("value", "ci_low", "ci_high"))
    return value if claim["ci_low"] is None else f"{value}, {low} to {high}"


def _number(unit: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    return {"points": f"{100 * value:+.1f} points", "factor": f"{value:.3f}x"}.get(unit, percent(value))


def claims_table(run: Mapping[str, Any]) -> Table:
    rows = [
        (
            c["claim"],
            c["verdict"],
            _figure(c) if c["value"] is not None else "",
            c["figure"],
            "" if c["n"] is None else f"{c['n']:,}",
            "" if c["n_needed"] is None else f"{c['n_needed']:,}",
        )
        for c in run["claims"]
    ]
    head = ("claim", "verdict", "figure with 95 % interval", "quantity", "n", "n needed")
    return Table(
        "The claims",
        head,
        tuple(rows),
        (
            "S is the paper's score (smd). n: items of the target, or pairs of passes for "
            "throughput. n needed: items that would decide."
        ),
    )


def rules_table(run: Mapping[str, Any]) -> Table:
    rows = tuple((c["claim"], c["rule"], "; ".join(c["details"][:_MOST])) for c in run["claims"])
    return Table("How each claim was judged", ("claim", "rule, fixed in advance", "details"), rows)


def threshold_table(run: Mapping[str, Any]) -> Table:
    rows = [
        (
            t["arm"],
            percent(t["non_inferior"]),
            f"{100 * t['detectable']:.1f} points",
            "too few ratios"
            if t["support"] is None
            else "none"
            if t["knee"] is None
            else f"{percent(t['knee'])} ({percent(t['knee_low'])} to {percent(t['knee_high'])})",
            "" if t["support"] is None else percent(t["support"], 0),
        )
        for t in run["sweep"]["thresholds"]
    ]
    margin = run["sweep"]["thresholds"][0]["margin"] if rows else 0.0
    note = (
        f"loses less than {100 * margin:g} points up to: ratios are tested in ascending order "
        "by a one-sided 95 % bound, up to the first "
        "that fails; 0 means not shown. detectable: the loss that this number of items can "
        "find. knee: where two straight lines fit "
        "clearly better than one, with its interval over resampled items; descriptive only."
    )
    head = ("arm", f"loses less than {100 * margin:g} points up to", "detectable", "knee", "resamplings with a knee")
    return Table("How far each arm can be pruned", head, tuple(rows), note)


def failed_table(run: Mapping[str, Any]) -> Table:
    rows = tuple((cell["cell"], cell["reason"]) for cell in run["sweep"]["failed"])
    return Table("Failed cells", ("cell", "reason"), rows, "The same command tries them again.")

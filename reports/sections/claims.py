"""The paper's claims with their verdicts, how far each arm can be pruned, and the cells that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import percent
from reports.parts import Section, Table

_MOST = 12  # sentences of a claim's details shown
_REASONS = ("cannot say: ", "missing: ")  # how a detail begins that says why there is no verdict
_MOST_REASONS = 3  # of them shown beside a verdict


def section(run: Mapping[str, Any]) -> Section:
    if not run.get("sweep"):
        return Section("claims", "The paper's claims")
    shown = (claims_table(run), threshold_table(run), failed_table(run))
    return Section("claims", "The paper's claims", tables=shown, folded=(rules_table(run),))


def sweep_sentences(run: Mapping[str, Any]) -> list[str]:
    """One line per claim."""
    return [f"{c['claim']}: {c['verdict']}{_reason(c)}." for c in run.get("claims", ())]


def _reason(claim: Mapping[str, Any]) -> str:
    why = undecided_by(claim)
    if claim["value"] is None:
        return f" ({why or next(iter(claim['details']), '')})"
    wanted = f"; {claim['n_needed']:,} would decide" if claim["n_needed"] else ""
    return f" ({f'{why}; ' if why else ''}{claim['figure']} {_figure(claim)}, n = {claim['n']:,}{wanted})"


def undecided_by(claim: Mapping[str, Any]) -> str:
    """Why nothing can be said: the reasons, then another figure where the claim's own is not what is open. Empty where
    its own interval says it.
    """
    if claim["verdict"] != "cannot say":
        return ""
    reasons = [line.removeprefix("cannot say: ") for line in claim["details"] if line.startswith(_REASONS)]
    more = [f"{len(reasons) - _MOST_REASONS} more such reasons"] if len(reasons) > _MOST_REASONS else []
    figures = [line for line in claim["details"] if not line.startswith(_REASONS)]
    return "; ".join([*reasons[:_MOST_REASONS], *more, *figures[: _is_decided(claim)]])


def _is_decided(claim: Mapping[str, Any]) -> bool:
    """Whether a difference in points has an interval without 0, so that a verdict is open for another figure's sake."""
    return claim["unit"] == "points" and claim["ci_low"] is not None and not claim["ci_low"] <= 0 <= claim["ci_high"]


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
            undecided_by(c),
        )
        for c in run["claims"]
    ]
    head = ("claim", "verdict", "figure with 95 % interval", "quantity", "n", "n needed", "why nothing can be said")
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
    version = run["sweep"].get("rules", 1)
    return Table("How each claim was judged", ("claim", f"rule, version {version}", "details"), rows)


def threshold_table(run: Mapping[str, Any]) -> Table:
    rows = [
        (
            t["arm"] + (" (one mask)" if t.get("masks") == 1 else ""),
            percent(t["non_inferior"]),
            "" if t.get("everywhere") is None else percent(t["everywhere"]),
            "no loss" if t["detectable"] is None else f"{100 * t['detectable']:.1f} points",
            _bend(t),
            "" if t["support"] is None else percent(t["support"], 0),
        )
        for t in run["sweep"]["thresholds"]
    ]
    margin = run["sweep"]["thresholds"][0]["margin"] if rows else 0.0
    note = (
        f"loses less than {100 * margin:g} points up to: ratios are tested in ascending order "
        "by a one-sided 95 % bound, for random pruning by one of 97.5 % over masks and items, up to the first "
        "that fails; 0 means not shown. on every task: on all with right answers that the dense model can do. Each arm "
        "has its 5 %: only the one that was fixed before looking is recommended. detectable: the loss that "
        "this number of items finds in four of five runs, as "
        f"planned: where {200 * margin:g} % of them change. knee: where two straight lines fit "
        "clearly better than one and than a quadratic, between the ratios, with its interval over resampled items; "
        "descriptive only."
    )
    head = (
        "arm",
        f"loses less than {100 * margin:g} points up to",
        "on every task",
        "detectable",
        "knee",
        "resamplings with a knee",
    )
    return Table("How far each arm can be pruned", head, tuple(rows), note)


_NO_KNEE = {
    "line": "none: a line fits as well",
    "curve": "none: a smooth curve fits as well",
    "edge": "none: it would be at the edge of the ratios",
    "flat": "none: no more than the margin is lost",
    "lost": "all is lost before the first ratio",
}


def _bend(t: Mapping[str, Any]) -> str:
    if t["support"] is None:
        return "too few ratios"
    if t["knee"] is None:
        return _NO_KNEE.get(t.get("shape") or "", "none")
    return f"{percent(t['knee'])} ({percent(t['knee_low'])} to {percent(t['knee_high'])})"


def failed_table(run: Mapping[str, Any]) -> Table:
    rows = tuple((cell["cell"], cell["reason"]) for cell in run["sweep"]["failed"])
    return Table("Failed cells", ("cell", "reason"), rows, "The same command tries them again.")

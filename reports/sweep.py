"""A sweep on the page: the claims, the thresholds, every point of the curves, and the curves themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures import LIKELIHOODS, Table, changed, measured, mebibytes, percent

_BAND = 0.18
_MOST = 12  # sentences of a claim's details shown


def sweep_sentences(run: Mapping[str, Any]) -> list[str]:
    """The claims, a line each."""
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


def sweep_tables(run: Mapping[str, Any]) -> list[Table]:
    if not run.get("sweep"):
        return []
    made = [make(run) for make in (claims_table, threshold_table, size_table, curve_table, failures_table, failed_table)]
    return [table for table in made if table.rows]


def claims_table(run: Mapping[str, Any]) -> Table:
    rows = [
        (
            c["claim"], c["verdict"], _figure(c) if c["value"] is not None else "", c["figure"], "" if c["n"] is None else f"{c['n']:,}",
            "" if c["n_needed"] is None else f"{c['n_needed']:,}", c["rule"], "; ".join(c["details"][:_MOST]),
        )
        for c in run["claims"]
    ]  # fmt: skip
    head = (
        "claim",
        "verdict",
        "figure with 95 % interval",
        "which is",
        "n",
        "n that would decide",
        "rule, fixed before looking",
        "details",
    )
    return Table("The claims", head, tuple(rows), "S is the paper's score (smd). n: items of the target; of throughput, pairs of passes.")


def threshold_table(run: Mapping[str, Any]) -> Table:
    rows = [
        (
            t["arm"], percent(t["non_inferior"]), f"{100 * t['detectable']:.1f} points",
            "not looked for" if t["support"] is None else "none" if t["knee"] is None
            else f"{percent(t['knee'])} ({percent(t['knee_low'])} to {percent(t['knee_high'])})",
            "" if t["support"] is None else percent(t["support"], 0),
        )
        for t in run["sweep"]["thresholds"]
    ]  # fmt: skip
    margin = run["sweep"]["thresholds"][0]["margin"] if rows else 0.0
    note = (
        f"loses less than {100 * margin:g} points up to: ratios in rising order, each shown by a one-sided 95 % bound, until the first "
        "that is not; 0 means not shown, not lost. detectable: the loss that so many items find. knee: where two straight pieces fit "
        "clearly better than one, with its interval over resampled items; it describes, it proves nothing."
    )
    head = ("arm", f"loses less than {100 * margin:g} points up to", "detectable", "knee", "resamplings with a knee")
    return Table("How far one can go", head, tuple(rows), note)


def size_table(run: Mapping[str, Any]) -> Table:
    """Of the arms that were timed, one for each width."""
    ratios = {(r["variant"], r["concurrency"]): r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s"}
    levels = sorted({level for _, level in ratios})
    rows = []
    for v in run["variants"]:
        if v["serving"]:
            speed = [_speed(ratios.get((v["name"], level))) for level in levels]
            width = f"{sum(v['intermediate_sizes']) / len(v['intermediate_sizes']):,.0f}"
            asked = percent(v["ratio_requested"])
            rows.append((asked, width, percent(v["ratio_parameters"], 2), f"{v['parameters']:,}", mebibytes(v["weight_bytes"]), *speed))
    head = ("ratio", "FFN width", "of parameters", "parameters", "weights", *(f"tokens per second, {level} at a time" for level in levels))
    return Table("Size and speed", head, tuple(rows), "Speed over the dense model, in turns, with the 95 % interval over pairs of passes.")


def _speed(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio['ratio']:.3f}x" + ("" if ratio["ci_low"] is None else f" ({ratio['ci_low']:.3f} to {ratio['ci_high']:.3f})")


def curve_table(run: Mapping[str, Any]) -> Table:
    """The dense model first, then every point."""
    dense = run["variants"][0]
    rows = [("dense", "0.0 %", "0.0 %", task, str(e["n"]), *_valued(e), *[""] * 5) for task, e in dense["eval"].items()]
    for p in run["sweep"]["points"]:
        specific, p_value = p["specificity"], "" if p["holm_p"] is None else f"{p['holm_p']:.2g}"
        rows.append(
            (
                p["arm"], percent(p["ratio_requested"]), percent(p["ratio_neurons"]), p["task"], str(p["n"]),
                *_valued(p), _spread(p), _change(p), p_value,
                "yes" if p["collapsed"] else "" if p["collapsed"] is None else "no",
                "" if specific is None else f"{100 * specific[0]:+.1f} ({100 * specific[1]:+.1f} to {100 * specific[2]:+.1f})",
            )
        )  # fmt: skip
    note = (
        f"Intervals at 95 %, over items. sd: over {_seeds(run)}. p: exact McNemar for one seed, Student's t over items for several, after "
        f"Holm over all rows. collapsed: the interval ends below {percent(run['sweep']['collapse_below'])} on the target; others alike. "
        "specificity: how many points more the target falls than the other tasks do on average."
    )
    head = (
        "arm",
        "ratio asked",
        "of neurons",
        "task",
        "n",
        "value",
        "95 % interval",
        "sd",
        "against dense",
        "p (Holm)",
        "collapsed",
        "specificity",
    )
    return Table("Every point", head, tuple(rows), note)


def _valued(found: Mapping[str, Any]) -> tuple[str, str]:
    """Value and interval."""
    value, low, high = (measured(found["metric"], found[key]) for key in ("value", "ci_low", "ci_high"))
    return value, "" if found["ci_low"] is None else f"{low} to {high}"


def _spread(point: Mapping[str, Any]) -> str:
    if point["sd"] is None:
        return ""
    return f"{point['sd']:.3f}" if point["metric"] in LIKELIHOODS else f"{100 * point['sd']:.1f}"


def _change(p: Mapping[str, Any]) -> str:
    value, low, high = (changed(p["metric"], p[key]) for key in ("difference", "difference_low", "difference_high"))
    return f"{value} ({low} to {high})"


def _seeds(run: Mapping[str, Any]) -> str:
    seeds = max((len(p["variants"]) for p in run["sweep"]["points"]), default=1)
    return f"{seeds} seeds" if seeds > 1 else "seeds, where there is more than one"


def target_table(run: Mapping[str, Any]) -> Table:
    """Accuracy on the target, a row a ratio and a column a way of pruning."""
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    arms, ratios = list(dict.fromkeys(p["arm"] for p in points)), sorted({p["ratio_requested"] for p in points})
    found = {(p["arm"], p["ratio_requested"]): measured(p["metric"], p["value"]) for p in points}
    rows = tuple((percent(ratio), *(found.get((arm, ratio), "") for arm in arms)) for ratio in ratios)
    dense = run["variants"][0]["eval"][run["task"]]
    note = (
        f"dense: {measured(dense['metric'], dense['value'])}, n = {dense['n']}; means over seeds. Other tasks and intervals: in the report."
    )
    return Table(f"{run['task']} {dense['metric']}", ("removed", *arms), rows, note)


def failures_table(run: Mapping[str, Any]) -> Table:
    """Of the target."""
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    dense = run["variants"][0]["eval"][run["task"]]
    kinds = [kind for kind in dense["failures"] if any(p["failures"][kind] for p in points) or dense["failures"][kind]]
    traps = {v["name"]: v["eval"][run["task"]]["trap_rate"] for v in run["variants"]}
    trap = percent(traps["dense"])
    rows = [("dense", "0.0 %", percent(dense["failure_rate"]), *(percent(dense["failures"][kind]) for kind in kinds), trap)]
    rows += [
        (
            p["arm"],
            percent(p["ratio_requested"]),
            percent(p["failure_rate"]),
            *(percent(p["failures"][kind]) for kind in kinds),
            percent(_mean([traps[name] for name in p["variants"]])),
        )
        for p in points
    ]
    note = "Means over seeds. One answer can have several kinds; kinds never seen are left out. any: any kind but a wrong answer. "
    note += "trap: the paper's count, answers of at least 1024 tokens."
    return Table(f"Failures on {run['task']}", ("arm", "ratio", "any", *kinds, "trap"), tuple(rows) if kinds else (), note)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def failed_table(run: Mapping[str, Any]) -> Table:
    rows = tuple((cell["cell"], cell["reason"]) for cell in run["sweep"]["failed"])
    return Table("Cells that failed", ("cell", "reason"), rows, "The same command tries them again.")


def sweep_charts(run: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(description, chart): accuracy, failures, size and speed against the ratio."""
    if not run.get("sweep"):
        return []
    made = [
        (
            "Accuracy against the share of neurons removed, with 95 % bands; the table Every point holds the same figures",
            accuracy_chart(run),
        )
    ]
    if any(p["failure_rate"] for p in run["sweep"]["points"]):
        made.append(("Failure kinds on the target against the ratio; the table Failures holds the same figures", failure_chart(run)))
    if any(v["serving"] for v in run["variants"]):
        made.append(("Weights and throughput against the ratio; the table Size and speed holds the same figures", cost_chart(run)))
    return made


def accuracy_chart(run: Mapping[str, Any]) -> Any:
    """One panel a task, one line a way of pruning; accuracy in %, other metrics on their own scale."""
    import altair as alt

    tasks = list(run["variants"][0]["eval"])
    return alt.hconcat(*(_curves(run, task) for task in tasks)).resolve_scale(color="shared")


def _curves(run: Mapping[str, Any], task: str) -> Any:
    import altair as alt

    dense, arms = run["variants"][0]["eval"][task], list(dict.fromkeys(p["arm"] for p in run["sweep"]["points"]))
    scale = 1 if dense["metric"] in LIKELIHOODS else 100
    start = [_row(arm, 0.0, dense, scale) for arm in arms]
    rows = start + [_row(p["arm"], 100 * p["ratio_neurons"], p, scale) for p in run["sweep"]["points"] if p["task"] == task]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("removed:Q", title="FFN neurons removed, %"),
        color=alt.Color("arm:N", sort=arms, title=None, legend=alt.Legend(orient="bottom")),
    )
    whole = alt.Scale(domain=[0, 100]) if scale == 100 else alt.Scale(type="log")
    title = f"{dense['metric']}{', %' if scale == 100 else ''}"
    band = base.mark_area(opacity=_BAND).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
    line = base.mark_line(point=True).encode(y=alt.Y("value:Q", title=title, scale=whole))
    return (band + line).properties(width=250, height=220, title=task)


def _row(arm: str, removed: float, found: Mapping[str, Any], scale: int) -> dict[str, Any]:
    value = found["value"]
    low, high = (value if found[key] is None else found[key] for key in ("ci_low", "ci_high"))
    return {"arm": arm, "removed": removed, "value": scale * value, "low": scale * low, "high": scale * high}


def failure_chart(run: Mapping[str, Any]) -> Any:
    import altair as alt

    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    kinds = [kind for kind in points[0]["failures"] if kind != "wrong" and any(p["failures"][kind] for p in points)]
    dense = run["variants"][0]["eval"][run["task"]]
    start = [{"arm": arm, "ratio_neurons": 0.0, "failures": dense["failures"]} for arm in dict.fromkeys(p["arm"] for p in points)]
    rows = [
        {"arm": p["arm"], "removed": 100 * p["ratio_neurons"], "kind": kind, "rate": 100 * (p["failures"][kind] or 0)}
        for p in [*start, *points]
        for kind in kinds
    ]
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("removed:Q", title="FFN neurons removed, %"),
            y=alt.Y("rate:Q", title="answers, %", scale=alt.Scale(domain=[0, 100])),
            color=alt.Color("kind:N", title=None, legend=alt.Legend(orient="bottom")),
        )
        .properties(width=170, height=170)
        .facet(column=alt.Column("arm:N", title=None, sort=list(dict.fromkeys(p["arm"] for p in points))))
    )


def cost_chart(run: Mapping[str, Any]) -> Any:
    import altair as alt

    dense = run["variants"][0]
    weights = [
        {"removed": 100 * v["ratio_neurons"], "of dense, %": 100 * v["weight_bytes"] / dense["weight_bytes"]}
        for v in run["variants"]
        if v["serving"]
    ]
    removed = {v["name"]: 100 * v["ratio_neurons"] for v in run["variants"]}
    speed = [
        {
            "removed": removed[r["variant"]],
            "at a time": str(r["concurrency"]),
            "times dense": r["ratio"],
            "low": r["ci_low"],
            "high": r["ci_high"],
        }
        for r in run["speed_ratios"]
        if r["quantity"] == "output_tok_s" and r["variant"] in removed
    ]
    axis = alt.X("removed:Q", title="FFN neurons removed, %")
    left = alt.Chart(alt.InlineData(values=weights)).mark_line(point=True)
    left = left.encode(x=axis, y=alt.Y("of dense, %:Q", title="weight bytes, % of dense", scale=alt.Scale(domain=[0, 100])))
    base = alt.Chart(alt.InlineData(values=speed)).encode(x=axis, color=alt.Color("at a time:N", title="at a time"))
    line = base.mark_line(point=True).encode(y=alt.Y("times dense:Q", title="tokens per second, times dense", scale=alt.Scale(zero=False)))
    band = base.mark_errorbar().encode(y=alt.Y("low:Q", title="tokens per second, times dense"), y2="high:Q")
    return alt.hconcat(left.properties(width=250, height=200), (line + band).properties(width=250, height=200))

"""Generation failures: by kind, by variant, and against the ratio in a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.core.types.evaluation import LIKELIHOOD_METRICS
from reports.figures import mean, percent
from reports.parts import Chart, Section, Table
from reports.plots import REMOVED, bands, by_legend, chart, colour, highlight, legend, tooltips
from reports.sections.accuracy import arms

_RIGHT = "right"
_COLOURS = {
    _RIGHT: "#2f9e6e",
    "wrong": "#9aa5b5",
    "loop": "#c8485b",
    "truncated": "#e07b28",
    "empty": "#8b63c9",
    "gibberish": "#d45f9e",
    "no_answer": "#3b76c4",
    "no_code": "#3aa3b5",
    "syntax_error": "#a8843c",
    "runtime_error": "#7fae3a",
}


def section(run: Mapping[str, Any]) -> Section:
    if run.get("sweep"):
        charts = (*_rate_charts(run), *_kind_charts(run))
        return Section(
            name="failures",
            title="Failures",
            charts=charts,
            tables=(),
            folded=(ratios_table(run), variants_table(run)),
        )
    return Section(
        name="failures",
        title="Failures",
        charts=tuple(_bar_charts(run)),
        tables=(variants_table(run),),
    )


def variants_table(run: Mapping[str, Any]) -> Table:
    evals = [
        (v["name"], task, e["failures"], e.get("trap_rate"))
        for v in run["variants"]
        for task, e in v["eval"].items()
        if e["metric"] not in LIKELIHOOD_METRICS
    ]
    kinds = evals[0][2] if evals else {}
    seen = [kind for kind in kinds if any(f[kind] is None or f[kind] > 0 for _, _, f, _ in evals)]
    rows = [(name, task, *(percent(f[kind]) for kind in seen), percent(trap)) for name, task, f, trap in evals]
    note = (
        "One answer can have several kinds; kinds that never occurred are omitted. trap: the "
        "paper's count, answers of at least 1024 tokens."
    )
    return Table("Failures by kind", ("variant", "task", *seen, "trap"), tuple(rows), note)


def ratios_table(run: Mapping[str, Any]) -> Table:
    """Failures on the target at every ratio."""
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    dense = run["variants"][0]["eval"][run["task"]]
    kinds = [kind for kind in dense["failures"] if any(p["failures"][kind] for p in points) or dense["failures"][kind]]
    traps = {v["name"]: v["eval"][run["task"]]["trap_rate"] for v in run["variants"]}
    trap = percent(traps["dense"])
    rows = [
        ("dense", "0.0 %", percent(dense["failure_rate"]), *(percent(dense["failures"][kind]) for kind in kinds), trap)
    ]
    rows += [
        (
            p["arm"],
            percent(p["ratio_requested"]),
            percent(p["failure_rate"]),
            *(percent(p["failures"][kind]) for kind in kinds),
            percent(mean([traps[name] for name in p["variants"]])),
        )
        for p in points
    ]
    note = (
        "Of random pruning means over all its masks. One answer can have several kinds; kinds that never occurred are "
        "omitted. any: any kind except a wrong answer. trap: the paper's count, answers of at least 1024 tokens; it "
        "and the charts of first kinds are over the masks of --seeds alone."
    )
    return Table(
        f"Failures on {run['task']}", ("arm", "ratio", "any", *kinds, "trap"), tuple(rows) if kinds else (), note
    )


def _rate_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """The rate of generation failures against the ratio, for tasks where some occurred and all are known."""
    import altair as alt

    for task, dense in run["variants"][0]["eval"].items():
        points = [p for p in run["sweep"]["points"] if p["task"] == task]
        if all(p["failure_rate"] is not None for p in points) and any(p["failure_rate"] for p in points):
            start = [{"arm": arm, "removed": 0.0, **_rate(dense)} for arm in arms(run)]
            rows = start + [{"arm": p["arm"], "removed": 100 * p["ratio_neurons"], **_rate(p)} for p in points]
            made = bands(rows, "arm", arms(run), "generation failures, %", alt.Scale(domain=[0, 100]))
            yield Chart(
                f"{task}: any failure",
                f"Generation failures on {task} against the ratio; the table Failures holds the same",
                made,
                legend=legend(arms(run)),
            )


def _rate(found: Mapping[str, Any]) -> dict[str, float]:
    rate = found["failure_rate"]
    low, high = (rate if found.get(key) is None else found[key] for key in ("failure_low", "failure_high"))
    return {"value": 100 * rate, "low": 100 * low, "high": 100 * high}


def _kind_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """One panel per arm: right answers and first failure kinds on the target, as areas that add up to 100 %."""
    import altair as alt

    rows = kind_rows(run)
    over = {p["arm"]: "over the masks of --seeds; " for p in run["sweep"]["points"] if len(p["variants"]) > 1}
    kinds = [
        kind
        for kind in dict.fromkeys(row["kind"] for row in rows)
        if any(row["share"] for row in rows if row["kind"] == kind)
    ]
    for arm in arms(run) if rows else ():
        own = [{**row, "order": kinds.index(row["kind"])} for row in rows if row["arm"] == arm and row["kind"] in kinds]
        areas = (
            chart(own)
            .mark_area(cursor="pointer")
            .encode(
                x=alt.X("removed:Q", title=REMOVED),
                y=alt.Y("share:Q", title="answers, %", stack="zero", scale=alt.Scale(domain=[0, 100])),
                color=colour("kind", kinds, _COLOURS),
                order=alt.Order("order:Q"),
                opacity=by_legend("kind", 1, 0.2),
                tooltip=tooltips([{"arm": "", "kind": ""}]),
            )
            .add_params(highlight())
        )
        what = (
            f"Right answers and first failure kinds on {run['task']} for {arm}; {over.get(arm, '')}"
            "the table Failures has all kinds"
        )
        yield Chart(f"{run['task']}: {arm}", what, areas, True, legend(kinds, _COLOURS))


def kind_rows(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Shares of the target's answers in %, means over the masks of --seeds: right, then each first kind. Empty for a
    run without them.
    """
    by_name = {v["name"]: v["eval"][run["task"]] for v in run["variants"] if run["task"] in v["eval"]}
    if not any(e.get("wrong_by_kind") for e in by_name.values()):
        return []
    kinds = list(dict.fromkeys(kind for e in by_name.values() for kind in e.get("wrong_by_kind", {})))
    start = [(arm, 0.0, ("dense",)) for arm in arms(run)]
    places = start + [
        (p["arm"], 100 * p["ratio_neurons"], p["variants"]) for p in run["sweep"]["points"] if p["task"] == run["task"]
    ]
    return [
        {
            "task": run["task"],
            "arm": arm,
            "removed": removed,
            "kind": kind,
            "share": 100 * sum(_share(by_name[name], kind) for name in names) / len(names),
        }
        for arm, removed, names in places
        for kind in (_RIGHT, *kinds)
    ]


def _share(found: Mapping[str, Any], kind: str) -> float:
    return float(found["value"] if kind == _RIGHT else found.get("wrong_by_kind", {}).get(kind, 0.0))


def _bar_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """One panel per task, one bar per variant."""
    import altair as alt

    names = [v["name"] for v in run["variants"]]
    for task in run["variants"][0]["eval"]:
        found = [
            (v["name"], v["eval"][task])
            for v in run["variants"]
            if task in v["eval"] and v["eval"][task].get("wrong_by_kind")
        ]
        kinds = [_RIGHT, *dict.fromkeys(kind for _, e in found for kind in e.get("wrong_by_kind", {}))]
        rows = [
            {"task": task, "variant": v["name"], "kind": kind, "share": 100 * _share(v["eval"][task], kind), "order": i}
            for v in run["variants"]
            if found and task in v["eval"]
            for i, kind in enumerate(kinds)
        ]
        if rows:
            bars = (
                chart(rows)
                .properties(height=36 * len(names) + 40)
                .mark_bar(cursor="pointer")
                .encode(
                    x=alt.X("share:Q", title="answers, %", scale=alt.Scale(domain=[0, 100])),
                    y=alt.Y("variant:N", sort=names, title=None, axis=alt.Axis(labelLimit=230)),
                    color=colour("kind", kinds, _COLOURS),
                    order=alt.Order("order:Q"),
                    opacity=by_legend("kind", 1, 0.2),
                    tooltip=tooltips(rows),
                )
                .add_params(highlight())
            )
            yield Chart(
                task,
                f"Right answers and first failure kinds on {task}; the table Failures by kind counts every kind",
                bars,
                picks=True,
                legend=legend(kinds, _COLOURS),
            )

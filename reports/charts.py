"""Altair charts as inline SVG: they need no script and no network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import LIKELIHOODS
from reports.neurons import whereabouts_chart
from reports.recovery import recovery_charts
from reports.sweep import sweep_charts


def drawn(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(description, SVG) of every chart for which the run has figures."""
    made = [(what, _svg(chart)) for what, chart in sweep_charts(run)]
    if not run.get("sweep") and any(_accuracies(v) for v in run["variants"]):
        made.append(("Accuracy of every variant on every task; the table Accuracy holds the same figures", accuracy(run)))
    if not run.get("sweep") and any(v["serving"] and v["serving"]["concurrency"] for v in run["variants"]):
        made.append(("Output tokens per second; the table Serving holds the same figures", throughput(run)))
    made += [(what, _svg(chart)) for what, chart in recovery_charts(run)]
    if run.get("neurons"):
        what = "Where the most and the least task-specific neurons sit, by layer; the table Where the neurons sit holds the same figures"
        made.append((what, _svg(whereabouts_chart(run))))
    return made


def accuracy(run: Mapping[str, Any]) -> str:
    """Accuracy of every variant on every task, with Wilson intervals."""
    import altair as alt

    rows = [
        {"variant": v["name"], "task": task, "value": 100 * e["value"], "low": 100 * e["ci_low"], "high": 100 * e["ci_high"]}
        for v in run["variants"]
        for task, e in _accuracies(v).items()
    ]
    names = [v["name"] for v in run["variants"]]
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("variant:N", sort=names, title=None, axis=alt.Axis(labels=False, ticks=False)),
        color=alt.Color("variant:N", sort=names, title=None, legend=alt.Legend(orient="bottom", labelLimit=300)),
    )
    bars = base.mark_bar(opacity=0.75).encode(y=alt.Y("value:Q", title="right answers, %", scale=alt.Scale(domain=[0, 100])))
    whiskers = base.mark_rule(color="#222", strokeWidth=2).encode(y="low:Q", y2="high:Q", color=alt.value("#222"))
    return _svg((bars + whiskers).properties(width=130, height=220).facet(column=alt.Column("task:N", sort=_tasks(run), title=None)))


def throughput(run: Mapping[str, Any]) -> str:
    """Output tokens per second at each concurrency, one dot a repeat."""
    import altair as alt

    rows = [
        {"variant": v["name"], "at a time": r["concurrency"], "tok/s": value}
        for v in run["variants"]
        if v["serving"]
        for r in v["serving"]["concurrency"]
        for value in r["output_tok_s_repeats"]
    ]
    names = [v["name"] for v in run["variants"]]
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_point(filled=True, size=70, opacity=0.75)
        .encode(
            x=alt.X("tok/s:Q", title="output tokens per second, one dot a repeat", scale=alt.Scale(zero=True)),
            y=alt.Y("variant:N", sort=names, title=None, axis=alt.Axis(labelLimit=200)),
            color=alt.Color("variant:N", sort=names, legend=None),
            row=alt.Row("at a time:O", title="requests at a time"),
        )
        .properties(width=420, height=60)
        .resolve_scale(x="independent")
    )
    return _svg(chart)


def _tasks(run: Mapping[str, Any]) -> list[str]:
    return list(_accuracies(run["variants"][0]))


def _accuracies(variant: Mapping[str, Any]) -> dict[str, Any]:
    """Shares with an interval; perplexities and lm-eval's other figures have no place on this axis."""
    shown = {task: e for task, e in variant["eval"].items() if e["metric"] not in LIKELIHOODS and e["ci_low"] is not None}
    return {task: e for task, e in shown.items() if 0 <= e["value"] <= 1}


def _svg(chart: Any) -> str:
    import vl_convert

    return str(vl_convert.vegalite_to_svg(chart.to_json()))

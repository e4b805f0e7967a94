"""Accuracy: every variant, item by item against dense, and the curves of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.core.types.evaluation import LIKELIHOOD_METRICS, has_right_answers, is_mean_score
from reports.figures import changed, done_text, interval, measured, percent
from reports.parts import Chart, Section, Table
from reports.plots import bands, chart, colour, legend, tooltips


def section(run: Mapping[str, Any]) -> Section:
    if run.get("sweep"):
        tables = (target_table(run),) if run["sweep"]["points"] else ()
        return Section(
            name="accuracy",
            title="Accuracy",
            text=(),
            charts=tuple(_curve_charts(run)),
            tables=tables,
            folded=(curve_table(run), difference_table(run), *distance_tables(run)),
        )
    return Section(
        name="accuracy",
        title="Accuracy",
        text=(),
        charts=tuple(_bar_charts(run)),
        tables=(accuracy_table(run), difference_table(run), *distance_tables(run)),
    )


def accuracy_table(run: Mapping[str, Any]) -> Table:
    head = ("variant", "task", "metric", "n", "value", "95 % interval", "failures", "tokens per answer")
    rows = [
        (
            v["name"],
            task,
            e["metric"],
            str(e["n"]),
            measured(e["metric"], e["value"]),
            " to ".join(measured(e["metric"], e[key], e["value"]) for key in ("ci_low", "ci_high")),
            percent(e["failure_rate"]),
            "unknown" if e["tokens_per_answer"] is None else f"{e['tokens_per_answer']:.1f}",
        )
        for v in run["variants"]
        for task, e in v["eval"].items()
    ]
    means = any(is_mean_score(e["metric"]) for v in run["variants"] for e in v["eval"].values())
    scores = ", Student's t over items for means of scores" if means else ""
    return Table(
        "Accuracy",
        head,
        tuple(rows),
        f"The first task is the target, the others are off-target. Intervals are Wilson's{scores}; over texts "
        "for perplexity and bits per byte (lower is better). failures: any kind except a wrong answer.",
    )


def difference_table(run: Mapping[str, Any]) -> Table:
    head = (
        "variant",
        "against",
        "task",
        "n",
        "points",
        "95 % interval (paired)",
        "right to wrong",
        "wrong to right",
        "McNemar p",
    )
    rows = []
    for c in run["comparisons"]:
        difference, low, high = interval(c)
        flips = ("", "", "") if c["mcnemar_p"] is None else (str(c["lost"]), str(c["gained"]), f"{c['mcnemar_p']:.2g}")
        rows.append((c["variant"], c["baseline"], c["task"], str(c["n"]), difference, f"{low} to {high}", *flips))
    return Table("Item by item", head, tuple(rows))


def distance_tables(run: Mapping[str, Any]) -> tuple[Table, ...]:
    """How far every variant is from the dense model on its own answers; no table where that was not measured."""
    rows = [_distance_row(v, d) for v in run["variants"] for e in v["eval"].values() if (d := e.get("kl_to_dense"))]
    head = ("variant", "removed", "KL, nats per token", "95 % interval", "top-1 agreement", "95 % interval of it", "n")
    note = (
        f"On the first model's own greedy answers to {run['task']}, without labels. KL: the mean divergence from its "
        "next-token distribution to the variant's, a lower bound by the most probable tokens. Agreement: the share of "
        "tokens that both models put first. Intervals over answers. n: answers, with their tokens."
    )
    return (Table("Distance to dense", head, tuple(rows), note),) if rows else ()


def _distance_row(v: Mapping[str, Any], d: Mapping[str, Any]) -> tuple[str, ...]:
    known = d["ci_low"] is not None
    return (
        v["name"],
        percent(v["ratio_neurons"]),
        f"{d['nats_per_token']:.4f}",
        f"{d['ci_low']:.4f} to {d['ci_high']:.4f}" if known else "",
        percent(d["agreement"]),
        f"{percent(d['agreement_low'])} to {percent(d['agreement_high'])}" if known else "",
        f"{d['n']} ({d['tokens']:,} tokens)",
    )


def curve_table(run: Mapping[str, Any]) -> Table:
    """The dense model first, then every point."""
    dense = run["variants"][0]
    rows = [("dense", "0.0 %", "0.0 %", task, str(e["n"]), *_valued(e), *[""] * 5) for task, e in dense["eval"].items()]
    for p in run["sweep"]["points"]:
        specific, p_value = p["specificity"], "" if p["holm_p"] is None else f"{p['holm_p']:.2g}"
        rows.append(
            (
                p["arm"],
                percent(p["ratio_requested"]),
                percent(p["ratio_neurons"]),
                p["task"],
                str(p["n"]),
                *_valued(p),
                _spread(p),
                _change(p),
                p_value,
                "yes" if p["collapsed"] else "" if p["collapsed"] is None else "no",
                ""
                if specific is None
                else f"{100 * specific[0]:+.1f} ({100 * specific[1]:+.1f} to {100 * specific[2]:+.1f})",
            )
        )
    note = (
        "Intervals at 95 %, over items; of random pruning over masks and items (of one mask: that mask alone). "
        f"sd: over {_masks(run)}. p: exact McNemar, for several masks where the interval ends at 0, after "
        "Holm over all rows. collapsed: the interval ends below "
        f"{percent(run['sweep']['collapse_below'])} on the target, and by the same rule elsewhere; of random pruning "
        "every mask's own interval. "
        "specificity: how many points more the target loses than this task."
    )
    head = (
        "arm",
        "ratio requested",
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
    value, low, high = (measured(found["metric"], found[key], found["value"]) for key in ("value", "ci_low", "ci_high"))
    return value, "" if found["ci_low"] is None else f"{low} to {high}"


def _spread(point: Mapping[str, Any]) -> str:
    if point["sd"] is None:
        return ""
    return f"{point['sd']:.3f}" if point["metric"] in LIKELIHOOD_METRICS else f"{100 * point['sd']:.1f}"


def _change(p: Mapping[str, Any]) -> str:
    value, low, high = (changed(p["metric"], p[key]) for key in ("difference", "difference_low", "difference_high"))
    return f"{value} ({low} to {high})"


def _masks(run: Mapping[str, Any]) -> str:
    """Of every number of masks that a point has: `3 or 20 masks`."""
    counts = sorted({len(p.get("masks") or p["variants"]) for p in run["sweep"]["points"]} - {1})
    return f"{' or '.join(map(str, counts))} masks" if counts else "masks, if more than one"


def target_table(run: Mapping[str, Any]) -> Table:
    """Accuracy on the target, one row per ratio and one column per arm."""
    points = [p for p in run["sweep"]["points"] if p["task"] == run["task"]]
    arms, ratios = list(dict.fromkeys(p["arm"] for p in points)), sorted({p["ratio_requested"] for p in points})
    found = {(p["arm"], p["ratio_requested"]): measured(p["metric"], p["value"]) for p in points}
    rows = tuple((_removed(points, ratio), *(found.get((arm, ratio), "") for arm in arms)) for ratio in ratios)
    dense = run["variants"][0]["eval"][run["task"]]
    note = (
        f"dense: {measured(dense['metric'], dense['value'])}, n = {dense['n']}; means over "
        "masks. The table Every point has the intervals."
    )
    return Table(f"{run['task']} {dense['metric']}", ("removed", *arms), rows, note)


def _removed(points: Sequence[Mapping[str, Any]], asked: float) -> str:
    """What was removed for a ratio that was asked; several shares where it is not the same for all arms."""
    texts = (done_text(asked, p["ratio_neurons"]) for p in points if p["ratio_requested"] == asked)
    return " / ".join(dict.fromkeys(texts))


def _bar_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """One panel per task: every variant with its interval."""
    import altair as alt

    names = [v["name"] for v in run["variants"]]
    for task in run["variants"][0]["eval"]:
        evals = [(v["name"], v["eval"][task]) for v in run["variants"] if task in v["eval"]]
        if not all(is_share(e) for _, e in evals):
            continue
        metric = evals[0][1]["metric"]
        what = "right answers" if has_right_answers(metric) else metric
        rows = [{"variant": name, **_interval(e, 100)} for name, e in evals]
        base = chart(rows).properties(height=36 * len(rows) + 40)
        base = base.encode(
            y=alt.Y("variant:N", sort=names, title=None, axis=alt.Axis(labelLimit=230)), tooltip=tooltips(rows)
        )
        scale = alt.Scale(domain=[0, 100])
        dots = base.mark_point(filled=True, size=90, opacity=1).encode(
            x=alt.X("value:Q", title=f"{what}, %", scale=scale), color=colour("variant", names)
        )
        rules = base.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q", scale=scale), x2="high:Q", color=colour("variant", names)
        )
        yield Chart(
            task,
            f"Accuracy of every variant on {task} with 95 % intervals; the table Accuracy holds the same figures",
            rules + dots,
        )


def is_share(found: Mapping[str, Any]) -> bool:
    """Whether a result is a share with an interval; others do not belong on an axis of percentages."""
    return found["metric"] not in LIKELIHOOD_METRICS and found["ci_low"] is not None and 0 <= found["value"] <= 1


def _curve_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """One panel per task, one line per arm; accuracy in %, other metrics on their own scale."""
    import altair as alt

    for task, dense in run["variants"][0]["eval"].items():
        share = dense["metric"] not in LIKELIHOOD_METRICS
        rows = curve_rows(run, task)
        axis = "log" if all(row["low"] > 0 for row in rows) else "linear"  # over few masks a band can go down to 0
        scale = alt.Scale(domain=[0, 100]) if share else alt.Scale(type=axis)
        title = f"{dense['metric']}{', %' if share else ''}"
        made = bands(rows, "arm", arms(run), title, scale)
        what = (
            f"{task}: {dense['metric']} against the share removed, with 95 % bands; the "
            "table Every point holds the same figures"
        )
        yield Chart(f"{task}{' (target)' if task == run['task'] else ''}", what, made, legend=legend(arms(run)))


def arms(run: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(p["arm"] for p in run["sweep"]["points"]))


def curve_rows(run: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    """Every arm, starting from the dense model."""
    dense = run["variants"][0]["eval"][task]
    scale = 1 if dense["metric"] in LIKELIHOOD_METRICS else 100
    start = [{"arm": arm, "removed": 0.0, **_interval(dense, scale)} for arm in arms(run)]
    found = (p for p in run["sweep"]["points"] if p["task"] == task)
    return start + [{"arm": p["arm"], "removed": 100 * p["ratio_neurons"], **_interval(p, scale)} for p in found]


def _interval(found: Mapping[str, Any], scale: int) -> dict[str, float]:
    value = found["value"]
    low, high = (value if found[key] is None else found[key] for key in ("ci_low", "ci_high"))
    return {"value": scale * value, "low": scale * low, "high": scale * high}

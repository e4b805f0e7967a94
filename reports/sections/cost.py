"""What pruning saves: bytes of weights and time, predicted and measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.figures import done_text, mebibytes, percent
from reports.parts import Chart, Section, Table
from reports.plots import bands, chart, legend, tooltips
from reports.sections.serving import ratio_text, serving_tables

_MEASURED, _FORECAST = "measured", "predicted"


def section(run: Mapping[str, Any]) -> Section:
    title, charts = "Memory and speed", (*_weight_charts(run), *_speed_charts(run), *_repeat_charts(run))
    if run.get("sweep"):
        return Section(
            name="cost",
            title=title,
            text=(),
            charts=charts,
            tables=(size_table(run),),
            folded=tuple(serving_tables(run)),
        )
    return Section(name="cost", title=title, text=(), charts=charts, tables=tuple(serving_tables(run)))


def size_table(run: Mapping[str, Any]) -> Table:
    """The arms that were timed, one row per width."""
    ratios = {(r["variant"], r["concurrency"]): r for r in run["speed_ratios"] if r["quantity"] == "output_tok_s"}
    levels = sorted({level for _, level in ratios})
    rows = []
    for v in run["variants"]:
        if v["serving"]:
            timed = [ratios.get((v["name"], level)) for level in levels]
            speed = ["" if ratio is None else ratio_text(ratio) for ratio in timed]
            width = f"{sum(v['intermediate_sizes']) / len(v['intermediate_sizes']):,.0f}"
            rows.append(
                (
                    done_text(v["ratio_requested"], v["ratio_neurons"]),
                    width,
                    percent(v["ratio_parameters"], 2),
                    f"{v['parameters']:,}",
                    mebibytes(v["weight_bytes"]),
                    *speed,
                )
            )
    head = (
        "ratio",
        "FFN width",
        "of parameters",
        "parameters",
        "weights",
        *(f"tokens per second at concurrency {level}" for level in levels),
    )
    return Table(
        "Size and speed",
        head,
        tuple(rows),
        "Speed relative to the dense model, interleaved with it, with the 95 % interval over pairs of passes.",
    )


def _weight_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """Measured: bytes of the files. Predicted: parameters times bytes per parameter."""
    import altair as alt

    timed = [v for v in run["variants"] if v["serving"]]
    if not run.get("sweep") or not timed:
        return
    found = [(v, _MEASURED, v["weight_bytes"]) for v in timed]
    found += [(v, _FORECAST, v["serving"]["forecast"].get("weight_bytes")) for v in timed]
    rows = [
        {
            "what": what,
            "removed": 100 * v["ratio_neurons"],
            "value": size / 2**20,
            "low": size / 2**20,
            "high": size / 2**20,
        }
        for v, what, size in found
        if size is not None
    ]
    made = bands(rows, "what", [_MEASURED, _FORECAST], "weights, MiB", alt.Scale(zero=True))
    yield Chart(
        "weights",
        "Weights in MiB against the share removed, predicted and measured; also in the table Size and speed",
        made,
        legend=legend([_MEASURED, _FORECAST]),
    )


def _speed_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """At every concurrency: the ratio of throughputs with its interval, beside the ideal of the
    prediction.
    """
    share = {v["name"]: 100 * v["ratio_neurons"] for v in run["variants"]}
    known = [r for r in run.get("speed_ratios", ()) if r["quantity"] == "output_tok_s" and r["variant"] in share]
    for level in sorted({r["concurrency"] for r in known}) if run.get("sweep") else ():
        rows = list(_speed_rows([r for r in known if r["concurrency"] == level], share))
        what = (
            f"Output tokens per second relative to dense at concurrency {level}, "
            "predicted and measured; also in the speed tables"
        )
        yield Chart(
            f"speed at concurrency {level}",
            what,
            bands(rows, "what", [_MEASURED, _FORECAST], "tokens per second, relative to dense"),
            legend=legend([_MEASURED, _FORECAST]),
        )


def _speed_rows(ratios: Sequence[Mapping[str, Any]], share: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    for what in (_MEASURED, _FORECAST):
        yield {"what": what, "removed": 0.0, "value": 1.0, "low": 1.0, "high": 1.0}
    for r in ratios:
        ideal, removed_share = max(r["ideal_flops"], r["ideal_bytes"]), share[r["variant"]]
        low, high = (r["ratio"] if r[key] is None else r[key] for key in ("ci_low", "ci_high"))
        yield {"what": _MEASURED, "removed": removed_share, "value": r["ratio"], "low": low, "high": high}
        yield {"what": _FORECAST, "removed": removed_share, "value": ideal, "low": ideal, "high": ideal}


def _repeat_charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """One panel per concurrency of a single run: every repeat of every variant as a dot."""
    import altair as alt

    names = [v["name"] for v in run["variants"] if v["serving"]]
    levels = sorted({r["concurrency"] for v in run["variants"] if v["serving"] for r in v["serving"]["concurrency"]})
    for level in () if run.get("sweep") else levels:
        rows = [
            {"variant": v["name"], "value": value}
            for v in run["variants"]
            if v["serving"]
            for r in v["serving"]["concurrency"]
            if r["concurrency"] == level
            for value in r["output_tok_s_repeats"]
        ]
        dots = (
            chart(rows)
            .properties(height=36 * len(names) + 40)
            .mark_point(filled=True, size=70, opacity=0.75)
            .encode(
                x=alt.X("value:Q", title="output tokens per second, one dot per repeat", scale=alt.Scale(zero=True)),
                y=alt.Y("variant:N", sort=names, title=None, axis=alt.Axis(labelLimit=230)),
                tooltip=tooltips(rows),
            )
        )
        yield Chart(
            f"concurrency {level}",
            f"Output tokens per second at concurrency {level}; also in the table Throughput",
            dots,
        )

"""The scored neurons: distribution over layers, agreement between metrics, stability of a ranking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reports.figures import percent
from reports.parts import Chart, Section, Table
from reports.plots import chart, tooltips

_UNIFORM = (
    "With uniform widths every layer loses the same share of its neurons. The chart shows where "
    "one ranking over all layers would remove them."
)


def section(run: Mapping[str, Any]) -> Section:
    if not run.get("neurons"):
        return Section("neurons", "Neurons by layer")
    return Section(
        name="neurons",
        title="Neurons by layer",
        text=(_UNIFORM,),
        charts=tuple(_charts(run)),
        tables=(),
        folded=tuple(neuron_tables(run)),
    )


def neuron_tables(run: Mapping[str, Any]) -> list[Table]:
    """Empty where the run scored no neurons."""
    neurons = run.get("neurons")
    if not neurons:
        return []
    return [layer_table(neurons), agreement_table(neurons, _metric(run)), stability_table(neurons)]


def layer_table(neurons: Mapping[str, Any]) -> Table:
    names = list(neurons["share_per_layer"])
    head = ("layer", "width kept", *(f"{end} {name}" for name in names for end in ("highest", "lowest")))
    rows = [
        (
            str(layer),
            f"{width:,}",
            *(percent(neurons["share_per_layer"][name][end][layer]) for name in names for end in ("highest", "lowest")),
        )
        for layer, width in enumerate(neurons["widths"])
    ]
    share = percent(neurons["share"], 0)
    note = (
        f"The share of each layer's neurons among the network's {share} with the highest and "
        "lowest scores. Reverse pruning removes the "
        "highest S, selective pruning by S the lowest."
    )
    return Table("Neurons by layer", head, tuple(rows), note)


def agreement_table(neurons: Mapping[str, Any], metric: str) -> Table:
    found = neurons["agreement"]
    names = found["metrics"]
    against = list(dict.fromkeys(name for name in (metric, "smd") if name in names))
    head = ("metric", *(f"{what} {name}" for name in against for what in ("rank correlation with", "also removed by")))
    rows = [
        (name, *(cell for other in against for cell in _agreement(found, names.index(name), names.index(other))))
        for name in names
    ]
    ratio = percent(found["ratio"])
    note = (
        f"Spearman's rank correlation, and the overlap of the {ratio} that each removes "
        f"({ratio} by chance). Means over layers."
    )
    return Table("Agreement between metrics", head, tuple(rows), note)


def _agreement(found: Mapping[str, Any], i: int, j: int) -> tuple[str, str]:
    return f"{found['rank_correlation'][i][j]:+.2f}", percent(found["overlap"][i][j], 0)


def stability_table(neurons: Mapping[str, Any]) -> Table:
    found = neurons["stability"]
    ratios = list(next(iter(found.values()))["overlap"])
    head = ("metric", "rank correlation", *(f"same at {percent(float(ratio), 0)}" for ratio in ratios))
    rows = [
        (
            name,
            "{:.3f} ({:.3f})".format(*row["rank_correlation"]),
            *("{} ({})".format(*(percent(v, 0) for v in row["overlap"][ratio])) for ratio in ratios),
        )
        for name, row in found.items()
    ]
    note = (
        "Ranking on resampled calibration prompts (with replacement) against the ranking "
        "on all: mean, and the minimum in brackets."
    )
    return Table("Stability under resampling of the calibration prompts", head, tuple(rows), note)


def _charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """Layer x arm: where one ranking over the whole network would remove neurons, and what each variant of non-uniform
    widths lost.
    """
    neurons = run["neurons"]
    rows = [
        {"layer": layer, "method": _method(name, end), "part": 100 * value}
        for name, ends in neurons["share_per_layer"].items()
        for end, values in ends.items()
        for layer, value in enumerate(values)
    ]
    share = percent(neurons["share"], 0)
    what = f"Share of each layer among the {share} of the network that each ranking removes first; see Neurons by layer"
    yield Chart(f"first {share} removed by each ranking", what, _heat_map(rows, "share of the layer, %"))
    uneven = [v for v in run["variants"] if len(set(v["intermediate_sizes"])) > 1]
    if uneven:
        whole = max(max(v["intermediate_sizes"]) for v in run["variants"])
        rows = [
            {"layer": layer, "method": v["name"], "part": 100 * (1 - width / whole)}
            for v in uneven
            for layer, width in enumerate(v["intermediate_sizes"])
        ]
        yield Chart(
            "removed from each layer",
            "Share of its neurons that each layer lost, by variant",
            _heat_map(rows, "removed, %"),
        )


def _method(metric: str, end: str) -> str:
    """Selective pruning removes the lowest scores, reverse pruning the highest."""
    return f"{'reverse' if end == 'highest' else 'selective'} by {metric}"


def _heat_map(rows: Sequence[Mapping[str, Any]], title: str) -> Any:
    import altair as alt

    methods = list(dict.fromkeys(row["method"] for row in rows))
    return (
        chart(rows)
        .properties(height=32 * len(methods) + 20)
        .mark_rect()
        .encode(
            x=alt.X("layer:O", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
            y=alt.Y("method:N", sort=methods, title=None, axis=alt.Axis(labelLimit=230)),
            color=alt.Color(
                "part:Q", title=title, scale=alt.Scale(scheme="blues", domainMin=0), legend=alt.Legend(orient="bottom")
            ),
            tooltip=tooltips(rows),
        )
    )


def _metric(run: Mapping[str, Any]) -> str:
    return str(next((v["metric"] for v in run["variants"] if v["metric"]), "smd"))

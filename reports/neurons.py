"""Tables and chart of a run's neurons: where they sit, how far metrics agree, how stable a ranking is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.figures import Table, percent


def neuron_tables(run: Mapping[str, Any]) -> list[Table]:
    """Nothing where the run scored no neurons."""
    neurons = run.get("neurons")
    if not neurons:
        return []
    return [layer_table(neurons), agreement_table(neurons, _metric(run)), stability_table(neurons)]


def layer_table(neurons: Mapping[str, Any]) -> Table:
    names = list(neurons["whereabouts"])
    head = ("layer", "width kept", *(f"{end} {name}" for name in names for end in ("highest", "lowest")))
    rows = [
        (
            str(layer), f"{width:,}",
            *(percent(neurons["whereabouts"][name][end][layer]) for name in names for end in ("highest", "lowest")),
        )
        for layer, width in enumerate(neurons["widths"])
    ]  # fmt: skip
    share = percent(neurons["share"], 0)
    note = (
        f"The part of each layer's neurons that is among the network's {share} with the highest and the lowest score. The highest smd is "
        "what reverse pruning removes, the lowest what selective pruning by the paper's S removes."
    )
    return Table("Where the neurons sit", head, tuple(rows), note)


def agreement_table(neurons: Mapping[str, Any], metric: str) -> Table:
    found = neurons["agreement"]
    names = found["metrics"]
    against = list(dict.fromkeys(name for name in (metric, "smd") if name in names))
    head = ("metric", *(f"{what} {name}" for name in against for what in ("rank correlation with", "removed also by")))
    rows = [
        (name, *(cell for other in against for cell in _agreement(found, names.index(name), names.index(other)))) for name in names
    ]  # fmt: skip
    ratio = percent(found["ratio"])
    note = f"Spearman's rank correlation; and of the {ratio} that both remove, the common part ({ratio} by chance). Means over layers."
    return Table("How far metrics agree", head, tuple(rows), note)


def _agreement(found: Mapping[str, Any], i: int, j: int) -> tuple[str, str]:
    return f"{found['rank_correlation'][i][j]:+.2f}", percent(found["overlap"][i][j], 0)


def stability_table(neurons: Mapping[str, Any]) -> Table:
    found = neurons["stability"]
    ratios = list(next(iter(found.values()))["overlap"])
    head = ("metric", "rank correlation", *(f"same at {percent(float(ratio), 0)}" for ratio in ratios))
    rows = [
        (
            name, "{:.3f} ({:.3f})".format(*row["rank_correlation"]),
            *("{} ({})".format(*(percent(v, 0) for v in row["overlap"][ratio])) for ratio in ratios),
        )
        for name, row in found.items()
    ]  # fmt: skip
    note = "Ranking on calibration prompts drawn again (with replacement) against the ranking on all: mean, and the least in brackets."
    return Table("Stability under resampling of the calibration prompts", head, tuple(rows), note)


def whereabouts_chart(run: Mapping[str, Any]) -> Any:
    """Lines over layers: the part among the network's highest and lowest of each metric."""
    import altair as alt

    neurons = run["neurons"]
    rows = [
        {"layer": layer, "part": 100 * value, "which": f"{end} {percent(neurons['share'], 0)} by {name}"}
        for name, ends in neurons["whereabouts"].items()
        for end, values in ends.items()
        for layer, value in enumerate(values)
    ]
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("layer:O", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("part:Q", title="part of the layer's neurons, %"),
            color=alt.Color("which:N", title=None, legend=alt.Legend(orient="bottom", columns=2, labelLimit=300)),
        )
        .properties(width=420, height=200)
    )


def _metric(run: Mapping[str, Any]) -> str:
    return str(next((v["metric"] for v in run["variants"] if v["metric"]), "smd"))

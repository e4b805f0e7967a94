"""docs/accuracy.svg, the picture of the README, from the examples' run.json: `python -m scripts.make_figures`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reports.sections.accuracy import curve_rows

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "docs" / "accuracy.svg"
EXAMPLES = {
    "laptop": "tiny-math, 1.3 M parameters",
    "smollm2-math": "SmolLM2-135M, word problems alone",
    "sweep-smollm2-skills": "SmolLM2-135M, three skills",
}
ARMS = {  # arm in run.json -> name in the picture, colour
    "selective-best": ("best", "#2f9e6e"),
    "selective-S": ("S", "#3b76c4"),
    "random": ("random", "#8a94a3"),
    "reverse-S": ("reverse", "#c8485b"),
}


def rows(example: str) -> Iterator[dict[str, Any]]:
    """Accuracy on the target in %, with its interval, of every arm from the dense model on."""
    run = json.loads((ROOT / "reports" / "example" / example / "run.json").read_text(encoding="utf-8"))
    for row in curve_rows(run, run["task"]):
        if row["arm"] in ARMS:
            rounded = {key: round(row[key], 2) for key in ("removed", "value", "low", "high")}
            yield {"arm": ARMS[row["arm"]][0], **rounded}


def panel(example: str, title: str, first: bool) -> Any:
    import altair as alt

    data = list(rows(example))
    names, colours = zip(*ARMS.values(), strict=True)
    legend = alt.Legend(orient="top", title=None, symbolStrokeWidth=3, labelFontSize=13, symbolOpacity=1)
    base = alt.Chart(alt.InlineData(values=data), title=title, width=250, height=270).encode(
        x=alt.X(
            "removed:Q",
            title="FFN neurons removed, %",
            axis=alt.Axis(values=list(range(0, 51, 10))),
            scale=alt.Scale(domain=[0, 50]),
        ),
        color=alt.Color("arm:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
    )
    y = alt.Y("value:Q", title="word problems solved, %" if first else None, scale=alt.Scale(domain=[0, 100]))
    band = base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = base.mark_line(strokeWidth=2.5, point={"size": 45, "filled": True}).encode(y=y)
    return band + line


def figure() -> str:
    """The panels side by side, as SVG."""
    import altair as alt
    import vl_convert

    panels = [panel(example, title, i == 0) for i, (example, title) in enumerate(EXAMPLES.items())]
    chart = alt.hconcat(*panels, spacing=28, background="white", padding=14)
    chart = chart.configure_view(stroke=None).configure_title(
        fontSize=14, fontWeight=600, anchor="start", frame="group", offset=8
    )
    chart = chart.configure_axis(labelFontSize=12, titleFontSize=13, titleFontWeight=400, gridColor="#eceff3")
    return str(vl_convert.vegalite_to_svg(chart.to_json()))


if __name__ == "__main__":
    FIGURE.write_text(figure() + "\n", encoding="utf-8")

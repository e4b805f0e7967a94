"""Altair charts of one view at the page's full width. The page draws their legends, one for charts of the same names,
and a click on a name there highlights its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEIGHT = 240
_HIGHLIGHT = "highlight"
REMOVED = "FFN neurons removed, %"
PALETTE = ("#3b76c4", "#e07b28", "#2f9e6e", "#c8485b", "#8b63c9", "#a8843c", "#3aa3b5", "#d45f9e", "#7c8797", "#7fae3a")


def chart(rows: Sequence[Mapping[str, Any]]) -> Any:
    import altair as alt

    return alt.Chart(alt.InlineData(values=[dict(row) for row in rows])).properties(width="container", height=HEIGHT)


def removed() -> Any:
    import altair as alt

    return alt.X("removed:Q", title=REMOVED)


def colour(field: str, names: Sequence[str], colours: Mapping[str, str] | None = None) -> Any:
    """A colour scale that gives each name the same colour in every chart with the same names."""
    import altair as alt

    scale = alt.Scale(domain=list(names), range=[chosen for _, chosen in legend(names, colours)])
    return alt.Color(f"{field}:N", scale=scale, title=None, legend=None)


def legend(names: Sequence[str], colours: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """Each name with its colour."""
    return tuple((name, (colours or {}).get(name, PALETTE[i % len(PALETTE)])) for i, name in enumerate(names))


def highlight() -> Any:
    """The parameter that the page sets to the name picked in its legend."""
    import altair as alt

    return alt.param(name=_HIGHLIGHT, value="")


def by_legend(field: str, picked: float, other: float) -> Any:
    """The opacity of what belongs to the picked name, or of all where none is picked, and of the others."""
    import altair as alt

    return alt.condition(f"{_HIGHLIGHT} === '' || datum.{field} === {_HIGHLIGHT}", alt.value(picked), alt.value(other))


def bands(rows: Sequence[Mapping[str, Any]], by: str, names: Sequence[str], title: str, scale: Any = None) -> Any:
    """Lines of `value` over `removed`, a colour for each `by`, with bands from `low` to `high`."""
    import altair as alt

    base = chart(rows).encode(x=removed(), color=colour(by, names))
    y = alt.Y("value:Q", title=title, scale=scale or alt.Undefined)
    band = base.mark_area().encode(y=alt.Y("low:Q", title=title), y2="high:Q", opacity=by_legend(by, 0.16, 0.02))
    line = base.mark_line(point={"size": 40, "filled": True}).encode(y=y, opacity=by_legend(by, 1, 0.12))
    return (band + line.encode(tooltip=tooltips(rows))).add_params(highlight())


def tooltips(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    import altair as alt

    first = rows[0] if rows else {}
    return [
        alt.Tooltip(f"{name}:Q", format=".4~g") if isinstance(v, float) else alt.Tooltip(f"{name}:N")
        for name, v in first.items()
    ]

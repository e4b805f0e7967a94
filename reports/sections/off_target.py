"""Off target: what pruning for one task did to the others, and whether the target lost more than they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures import percent
from reports.parts import Chart, Section, Table
from reports.plots import bands, legend
from reports.sections.accuracy import arms


def section(run: Mapping[str, Any]) -> Section:
    if not run.get("sweep"):
        return Section("off-target", "Off target")
    made = specificity_table(run)
    return Section("off-target", "Off target", _text(made), specificity_charts(run), folded=(made,))


def _text(table: Table) -> tuple[str, ...]:
    text = (
        "Specificity: how many points more the target loses than another task under the same removal. Random "
        "pruning is specific too, where the target is the more fragile task: what counts is how far it is beyond "
        "random neurons and beyond neurons of matched contribution. A task that was a distractor is what S was "
        "contrasted with."
    )
    return (text,) if table.rows else ()


def _specific(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [p for p in run["sweep"]["points"] if p["specificity"] is not None] if run.get("sweep") else []


def specificity_charts(run: Mapping[str, Any]) -> tuple[Chart, ...]:
    points = _specific(run)
    if not points:
        return ()
    return tuple(_chart(run, task, points) for task in dict.fromkeys(p["task"] for p in points))


def _chart(run: Mapping[str, Any], task: str, points: Sequence[Mapping[str, Any]]) -> Chart:
    start = [{"arm": arm, "removed": 0.0, "value": 0.0, "low": 0.0, "high": 0.0} for arm in arms(run)]
    names = ("value", "low", "high")
    rows = [
        {
            "arm": p["arm"],
            "removed": 100 * p["ratio_neurons"],
            **{k: 100 * v for k, v in zip(names, p["specificity"], strict=True)},
        }
        for p in points
        if p["task"] == task
    ]
    what = (
        f"Specificity against {task} and the share of neurons removed, with 95 % bands; the "
        "table Specificity holds the same figures"
    )
    made = bands(start + rows, "arm", arms(run), "specificity, points")
    return Chart(f"specificity against {task}", what, made, legend=legend(arms(run)))


def specificity_table(run: Mapping[str, Any]) -> Table:
    head = ("arm", "of neurons", "against", "specificity, points", "beyond random", "beyond matched")
    rows = [
        (
            p["arm"],
            percent(p["ratio_neurons"]),
            p["task"] + (" (was a distractor)" if p.get("distractor") else ""),
            *(_points(p.get(key)) for key in ("specificity", "beyond_random", "beyond_matched")),
        )
        for p in _specific(run)
    ]
    note = "With 95 % intervals; beyond: at the same ratio. A task that the dense model cannot do is not here."
    return Table("Specificity", head, tuple(rows), note)


def _points(figure: Sequence[float] | None) -> str:
    if figure is None:
        return ""
    value, low, high = (f"{100 * end:+.1f}" for end in figure)
    return f"{value} ({low} to {high})"

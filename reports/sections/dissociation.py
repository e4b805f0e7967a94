"""Whether tasks have neurons of their own: the explanations with their verdicts, who loses what without whose neurons,
and how that depends on their number, on a factor and on the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports.figures import percent
from reports.parts import Chart, Section, Table
from reports.plots import HEIGHT, bands, chart, legend, tooltips

_ROW = 34  # pixels of a row of the matrix


def section(run: Mapping[str, Any]) -> Section:
    found = run.get("dissociation")
    if not found:
        return Section("dissociation", "Do tasks have neurons of their own?")
    text = (
        f"A task's neurons are the {percent(found['ratio'])} of every layer with the highest S, the task's prompts "
        "against those of the other tasks and general text. Each set was removed from a running engine, and all was "
        "asked on the same items. A share is of what the task loses without its neurons; 95 % intervals over items, of "
        "random and matched sets over sets and items.",
    )
    charts = (matrix_chart(found), *(dose_chart(found, task) for task in found["tasks"]))
    tables = (explanation_table(found), matrix_table(found), double_table(found), part_table(found))
    folded = (dose_table(found), prompt_table(found), matched_table(found), rule_table(found), failed_table(found))
    return Section("dissociation", "Do tasks have neurons of their own?", text, charts, tables, folded)


def dissociation_sentences(run: Mapping[str, Any]) -> list[str]:
    """One line for each task: what it loses, whether the set is its own, and what explains most of the loss."""
    found = run["dissociation"]
    return [_sentence(found, task) for task in found["tasks"]]


def _sentence(found: Mapping[str, Any], task: str) -> str:
    own = [e for e in found["explanations"] if e["target"] == task]
    verdict = next(e["verdict"] for e in own if e["explanation"] == "task-specific set")
    reverse = _of(found, "reverse", task)
    after = "nothing was measured" if not reverse else percent(_mean([_accuracy(r["outcomes"][task]) for r in reverse]))
    causes = [e["explanation"] for e in own if e["verdict"] == "explains most"]
    because = f"; explained mostly by {', '.join(causes)}" if causes else ""
    return (
        f"{task}, {percent(_accuracy(found['dense'][task]))} dense, without the {percent(found['ratio'])} of neurons "
        f"that S calls its own: {after}. Neurons of its own: {verdict}{because}."
    )


def _of(found: Mapping[str, Any], kind: str, target: str | None) -> list[Mapping[str, Any]]:
    return [one for one in found["interventions"] if one["kind"] == kind and one["target"] == target]


def _accuracy(outcomes: str) -> float:
    return outcomes.count("1") / len(outcomes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def explanation_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            e["target"],
            e["explanation"],
            e["verdict"],
            "" if e["value"] is None else f"{e['value']:.0%} ({e['ci_low']:.0%} to {e['ci_high']:.0%})",
            e["figure"],
            "; ".join(e["details"]),
        )
        for e in found["explanations"]
    ]
    head = ("task", "explanation", "verdict", "share", "what the share is", "details")
    return Table("What explains the loss", head, tuple(rows))


def _matrix_rows(found: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(whose neurons, the interventions of all draws), the sets with all distractors first."""
    rows = []
    for target in found["tasks"]:
        for held_out in (None, *(task for task in found["tasks"] if task != target)):
            kind = "held out" if held_out else "reverse"
            sets = [one for one in _of(found, kind, target) if one["held_out"] == held_out]
            if sets:
                rows.append((target + (f", {held_out} held out" if held_out else ""), sets))
    return rows


def matrix_table(found: Mapping[str, Any]) -> Table:
    rows = [("none (dense)", *(percent(_accuracy(found["dense"][task])) for task in found["tasks"]))]
    for label, sets in _matrix_rows(found):
        rows.append((label, *(_with_range(sets, task) for task in found["tasks"])))
    randoms = _of(found, "random", None)
    if randoms:
        rows.append((f"{len(randoms)} random sets", *(_with_range(randoms, task) for task in found["tasks"])))
    note = (
        "Accuracy, with the lowest and the highest of several draws or sets. held out: the task was not among the "
        "distractors."
    )
    return Table("Who loses what without whose neurons", ("neurons removed", *found["tasks"]), tuple(rows), note)


def _with_range(sets: Sequence[Mapping[str, Any]], task: str) -> str:
    values = [_accuracy(one["outcomes"][task]) for one in sets if task in one["outcomes"]]
    if not values:
        return ""
    several = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if len(values) > 1 else ""
    return percent(_mean(values)) + several


def matrix_chart(found: Mapping[str, Any]) -> Chart:
    import altair as alt

    rows = [
        {"neurons": label, "task": task, "accuracy": 100 * _mean([_accuracy(one["outcomes"][task]) for one in sets])}
        for label, sets in _matrix_rows(found)
        for task in found["tasks"]
    ]
    order = [label for label, _ in _matrix_rows(found)]
    base = chart(rows).properties(height=max(HEIGHT, _ROW * len(order)))
    base = base.encode(
        x=alt.X("task:N", title="accuracy on", sort=list(found["tasks"]), axis=alt.Axis(orient="top", labelAngle=-90)),
        y=alt.Y("neurons:N", title="neurons removed", sort=order, axis=alt.Axis(labelLimit=300)),
    )
    colour = alt.Color("accuracy:Q", title="%", scale=alt.Scale(scheme="blues", domain=[0, 100]), legend=None)
    boxes = base.mark_rect().encode(color=colour, tooltip=tooltips(rows))
    light = alt.condition("datum.accuracy > 55", alt.value("#ffffff"), alt.value("#1b2733"))
    figures = base.mark_text(fontSize=13).encode(text=alt.Text("accuracy:Q", format=".0f"), color=light)
    what = "Accuracy of each task without each task's neurons; the table Who loses what holds the same figures"
    return Chart("transfer matrix", what, boxes + figures)


def _doses(found: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    """The sets of growing size, the whole one last."""
    return [
        *sorted(_of(found, "dose", target), key=lambda one: float(one["ratio"])),
        *_of(found, "reverse", target)[:1],
    ]


def dose_chart(found: Mapping[str, Any], target: str) -> Chart:
    start = [{"task": task, "removed": 0.0, "value": 100 * _accuracy(found["dense"][task])} for task in found["tasks"]]
    rows = start + [
        {"task": task, "removed": 100 * one["ratio"], "value": 100 * _accuracy(one["outcomes"][task])}
        for one in _doses(found, target)
        for task in found["tasks"]
        if task in one["outcomes"]
    ]
    ends = [{**row, "low": row["value"], "high": row["value"]} for row in rows]
    what = f"Accuracy against the share of {target}'s neurons removed; the table Number of neurons has the same figures"
    made = bands(ends, "task", found["tasks"], "accuracy, %")
    return Chart(f"dose-response of {target}", what, made, legend=legend(found["tasks"]))


def dose_table(found: Mapping[str, Any]) -> Table:
    rows = []
    for target in found["tasks"]:
        for one in (*_doses(found, target), *_of(found, "scaled", target)):
            done = "removed" if one["factor"] == 0 else f"times {one['factor']:g}"
            rows.append((target, done, percent(one["ratio"]), f"{one['neurons']:,}", *_accuracies(found, one)))
    return Table(
        "Number of neurons, and factors", ("neurons of", "what", "share", "neurons", *found["tasks"]), tuple(rows)
    )


def _accuracies(found: Mapping[str, Any], one: Mapping[str, Any]) -> list[str]:
    return [percent(_accuracy(one["outcomes"][t])) if t in one["outcomes"] else "" for t in found["tasks"]]


def part_table(found: Mapping[str, Any]) -> Table:
    names = {
        "super alone": "the few largest alone",
        "without super": "all but the few largest",
        "without others": "all but as many others",
        "mean": "the mean on the task in place of 0",
        "general mean": "the mean on general text in place of 0",
        "re-fitted": "removed, the rest re-fitted on general text",
        "difference": "important for the task, not for general text",
        "surface": "by S against the task's words shuffled",
    }
    rows = [
        (target, names[kind], f"{one['neurons']:,}", percent(one["contribution"]), *_accuracies(found, one))
        for target in found["tasks"]
        for kind in names
        for one in _of(found, kind, target)
    ]
    note = (
        "contribution: the share of the sum over all neurons of E|h_j| * ||W_j|| on the task's prompts that the set "
        "makes. Where the re-fitted rest solves the task, what was removed is held elsewhere too."
    )
    return Table(
        "Other sets and other operations",
        ("task", "what", "neurons", "contribution", *found["tasks"]),
        tuple(rows),
        note,
    )


def prompt_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (target, what, f"{one['samples']}", percent(one["overlap"]), *_accuracies(found, one))
        for target in found["tasks"]
        for what, sets in (("fewer prompts", _of(found, "samples", target)), ("draw", _of(found, "reverse", target)))
        for one in sets
    ]
    note = "overlap: the share of the set that is in the set of the first draw with all prompts."
    head = ("neurons of", "what", "prompts of each source", "overlap", *found["tasks"])
    return Table("Calibration prompts", head, tuple(rows), note)


def matched_table(found: Mapping[str, Any]) -> Table:
    kinds = list(
        dict.fromkeys(one["kind"] for one in found["interventions"] if one["kind"].endswith(("layer", "total")))
    )
    rows = []
    for target in found["tasks"]:
        for kind in kinds:
            if sets := _of(found, kind, target):
                own = percent(_mean([one["contribution"] for one in sets]))
                rows.append((target, f"matched on {kind}", f"{len(sets)}", own, _with_range(sets, target)))
    return Table("Matched random sets", ("task", "sets", "number", "contribution", "accuracy (range)"), tuple(rows))


def double_table(found: Mapping[str, Any]) -> Table:
    rows = [
        (
            f"{pair['first']} and {pair['second']}",
            "held out" if pair["held_out"] else "distractors",
            pair["verdict"],
            *(_points(figure) for figure in (*pair["own"], *pair["other"])),
        )
        for pair in found["double"]
    ]
    head = (
        *("tasks", "each other's", "double dissociation", "first without its own", "second without its own"),
        *("second without the first's", "first without the second's"),
    )
    note = f"Losses in points; a loss below {100 * found['margin']:g} points counts as none."
    return Table("Double dissociation", head, tuple(rows), note)


def _points(figure: Sequence[float]) -> str:
    value, low, high = (100 * end for end in figure)
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def rule_table(found: Mapping[str, Any]) -> Table:
    rules = dict.fromkeys((e["rule"], e["explanation"] == "task-specific set") for e in found["explanations"])
    rows = [("task-specific set" if own else "the other explanations", rule) for rule, own in rules]
    return Table("How each explanation was judged", ("explanation", f"rule, version {found['rules']}"), tuple(rows))


def failed_table(found: Mapping[str, Any]) -> Table:
    rows = tuple(found["failed"].items())
    return Table("Failed interventions", ("intervention", "reason"), rows, "The same command tries them again.")

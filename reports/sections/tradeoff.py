"""What is given up for what is gained: the dense model and every ratio of the recommended way of pruning in one table,
and accuracy against size and speed for all arms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.core.types.evaluation import LIKELIHOOD_METRICS, has_right_answers
from reports.figures import changed, done_text, measured, mebibytes, percent, seconds_text, short_count
from reports.parts import Chart, Section, Table
from reports.plots import by_legend, chart, colour, highlight, legend, tooltips
from reports.sections.accuracy import arms
from reports.sections.serving import doubt, own_noise, per_right_answer, ratio_text, speeds_of, tokens_gained
from reports.verdict import Choice, choice, is_floor

_TITLE = "Trade-off"
_UNITS = ((10**9, "billions"), (10**6, "millions"), (1, "number"))


def section(run: Mapping[str, Any]) -> Section:
    chosen = choice(run) if run.get("sweep") else None
    if chosen is None:
        return Section("trade-off", _TITLE)
    tables = (tradeoff_table(run, chosen),)
    return Section("trade-off", _TITLE, charts=tuple(_charts(run, chosen)), tables=tables, tables_first=True)


def tradeoff_table(run: Mapping[str, Any], chosen: Choice) -> Table:
    """The dense model first, then every ratio of the recommended arm; the recommended row is marked."""
    arm = _arm(run, chosen.variant["name"])
    by_name = {v["name"]: v for v in run["variants"]}
    found: dict[float, dict[str, Mapping[str, Any]]] = {}
    for p in run["sweep"]["points"]:
        if p["arm"] == arm:
            found.setdefault(p["ratio_requested"], {})[p["task"]] = p
    tasks = [run["task"], *(task for task in run["variants"][0]["eval"] if task != run["task"])]
    rows, marked = [_dense_row(run, tasks)], None
    for ratio, points in sorted(found.items()):
        target = points[run["task"]]
        if chosen.variant["name"] in target["variants"]:
            marked = len(rows)
        rows.append(_row(run, by_name[target["variants"][0]], ratio, points, tasks, _mark(chosen, arm, target)))
    levels = [f"speed at concurrency {level}" for level in _levels(run)]
    results = (f"{tasks[0]} (target)", *tasks[1:], "failures", "per right answer")
    head = ("removed", "parameters", "weights", _room_head(run), *levels, *results)
    return Table(f"Dense and {arm}", head, tuple(rows), _note(run), marked)


def _arm(run: Mapping[str, Any], name: str) -> str:
    return str(next(p["arm"] for p in run["sweep"]["points"] if name in p["variants"]))


def _mark(chosen: Choice, arm: str, point: Mapping[str, Any]) -> str:
    if chosen.variant["name"] in point["variants"]:
        alone = not (chosen.everywhere or chosen.sole)
        return " (smallest)" if not chosen.shown else f" (recommended{', target only' * alone})"
    return " (target only)" if chosen.farther == (arm, point["ratio_neurons"]) else ""


def _note(run: Mapping[str, Any]) -> str:
    dense = run["variants"][0]["serving"]
    room = (
        "KV room: tokens that fit into the memory of the removed weights, on any device. "
        if dense
        else "Freed: memory of the removed weights, room for more KV cache. "
    )
    return (
        f"{room}Speed: output tokens per second relative to dense, of the same widths, with its 95 % interval. Tasks: "
        f"result, then change against dense with its 95 % interval, paired by item. failures: generation failures on "
        f"{run['task']}. per right answer: tokens of all answers on {run['task']} for each right one, and "
        f"their time at the highest concurrency.{_speed_note(run)}"
    )


def _speed_note(run: Mapping[str, Any]) -> str:
    """What a ratio of speeds has to exceed, and how those that do not are marked; nothing where none was timed."""
    levels = _levels(run)
    if not levels:
        return ""
    place = {"baseline": run["variants"][0]["name"], "quantity": "output_tok_s"}
    noises = [(level, own_noise(run, {**place, "concurrency": level})) for level in levels]
    spans = [f"{noise[0]:.2f} to {noise[1]:.2f} at concurrency {level}" for level, noise in noises if noise]
    itself = f"spans {', '.join(spans)}" if spans else "was not timed"
    return (
        f" Dense against itself {itself}. noisy, not shown, not compared: no evidence of a difference in speed, as "
        "repeats disagree, the interval reaches into that of dense against itself, or this was not timed; the time "
        "for each right answer is left out there."
    )


def _levels(run: Mapping[str, Any]) -> list[int]:
    return sorted({r["concurrency"] for r in run.get("speed_ratios", ()) if r["quantity"] == "output_tok_s"})


def _room_head(run: Mapping[str, Any]) -> str:
    return "KV room gained" if run["variants"][0]["serving"] else "freed"


def _dense_row(run: Mapping[str, Any], tasks: Sequence[str]) -> tuple[str, ...]:
    dense = run["variants"][0]
    results = [_valued(dense["eval"][task], dense["eval"][task]["value"]) for task in tasks]
    rate = dense["eval"][run["task"]]["failure_rate"]
    sizes = (short_count(dense["parameters"]), mebibytes(dense["weight_bytes"]), "")
    return ("dense", *sizes, *["1" for _ in _levels(run)], *results, percent(rate), _per_right(run, dense))


def _row(
    run: Mapping[str, Any],
    v: Mapping[str, Any],
    ratio: float,
    points: Mapping[str, Mapping[str, Any]],
    tasks: Sequence[str],
    mark: str,
) -> tuple[str, ...]:
    sizes = (
        f"{short_count(v['parameters'])} ({-100 * v['ratio_parameters']:.1f} %)",
        mebibytes(v["weight_bytes"]),
        _room(run, v),
    )
    known = {r["concurrency"]: ", ".join(filter(None, (ratio_text(r), doubt(run, r)))) for r in speeds_of(run, v)}
    speeds = [known.get(level, "not measured") for level in _levels(run)]
    results = [_changed(run, points[task]) if task in points else "not measured" for task in tasks]
    rate = percent(points[run["task"]]["failure_rate"])
    removed = done_text(ratio, points[run["task"]]["ratio_neurons"])
    return (f"{removed}{mark}", *sizes, *speeds, *results, rate, _per_right(run, v))


def _per_right(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    found = per_right_answer(run, v)
    if found is None:
        return "not measured"
    tokens, seconds = found
    return f"{tokens:.1f} tokens" + ("" if seconds is None else f", {seconds_text(seconds)}")


def _room(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    tokens = tokens_gained(run, v)
    return mebibytes(run["variants"][0]["weight_bytes"] - v["weight_bytes"]) if tokens is None else f"{tokens:,} tokens"


def _changed(run: Mapping[str, Any], p: Mapping[str, Any]) -> str:
    dense = run["variants"][0]["eval"][p["task"]]
    value = _valued(p, p["value"]) if len(p["variants"]) == 1 else measured(p["metric"], p["value"])
    if is_floor(dense):
        return f"{value}, cannot say"
    change, low, high = (changed(p["metric"], p[key]) for key in ("difference", "difference_low", "difference_high"))
    return f"{value}, {change} ({low} to {high})"


def _valued(found: Mapping[str, Any], value: float) -> str:
    """A result, with its count where answers are right or wrong."""
    shown = measured(found["metric"], value)
    return f"{shown} ({round(value * found['n'])} of {found['n']})" if has_right_answers(found["metric"]) else shown


def _charts(run: Mapping[str, Any], chosen: Choice) -> Iterator[Chart]:
    """Accuracy on the target of every point of every arm, against parameters and against speed."""
    rows = list(_pareto_rows(run, chosen))
    size, unit = next(found for found in _UNITS if run["variants"][0]["parameters"] >= found[0])
    by_size = [{**row, "x": row["parameters"] / size} for row in rows]
    what = "; the recommended point has a ring; the table has the recommended arm's figures"
    title = f"{run['task']} against size"
    yield Chart(title, f"{title}{what}", _pareto(run, by_size, f"parameters, {unit}", True), legend=legend(arms(run)))
    timed = [{**row, "x": row["speed"]} for row in rows if row["speed"]]
    if len({row["x"] for row in timed}) > 1:
        level = _levels(run)[-1]
        title = f"{run['task']} against speed"
        made = _pareto(run, timed, f"tokens per second at {level}, relative to dense")
        yield Chart(title, f"{title}{what}", made, legend=legend(arms(run)))


def _pareto_rows(run: Mapping[str, Any], chosen: Choice) -> Iterator[dict[str, Any]]:
    by_name = {v["name"]: v for v in run["variants"]}
    dense = run["variants"][0]
    scale = 1 if dense["eval"][run["task"]]["metric"] in LIKELIHOOD_METRICS else 100
    for arm in arms(run):
        start = {"variants": [dense["name"]], "value": dense["eval"][run["task"]]["value"], "ratio_neurons": 0.0}
        own = [p for p in run["sweep"]["points"] if (p["arm"], p["task"]) == (arm, run["task"])]
        for p in (start, *sorted(own, key=lambda p: float(p["ratio_neurons"]))):
            v = by_name[p["variants"][0]]
            speeds = speeds_of(run, v)
            yield {
                "arm": arm,
                "removed": 100 * p["ratio_neurons"],
                "parameters": v["parameters"],
                "value": scale * p["value"],
                "speed": 1.0 if v is dense else speeds[-1]["ratio"] if speeds else None,
                "chosen": chosen.variant["name"] in p["variants"],
            }


def _pareto(run: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], title: str, joined: bool = False) -> Any:
    """joined: a line through each arm's points, in order of what was removed."""
    import altair as alt

    metric = run["variants"][0]["eval"][run["task"]]["metric"]
    share = metric not in LIKELIHOOD_METRICS
    scale = alt.Scale(domain=[0, 100]) if share else alt.Scale(type="log")
    y = alt.Y("value:Q", title=f"{metric}{', %' if share else ''}", scale=scale)
    base = chart(rows).encode(x=alt.X("x:Q", title=title, scale=alt.Scale(zero=False)), y=y)
    shown = tooltips([{name: row for name, row in rows[0].items() if name not in ("x", "chosen", "speed")}])
    own = {"color": colour("arm", arms(run))}
    lines = base.mark_line().encode(**own, opacity=by_legend("arm", 0.45, 0.08), order=alt.Order("removed:Q"))
    dots = base.mark_point(filled=True, size=60).encode(**own, opacity=by_legend("arm", 1, 0.08), tooltip=shown)
    ring = base.transform_filter("datum.chosen").mark_point(filled=False, size=420, strokeWidth=3, opacity=1)
    return ((lines + dots if joined else dots) + ring).add_params(highlight())

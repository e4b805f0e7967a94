"""Recovery: sentences, tables and charts of the fine-tuned variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.core.types.evaluation import LIKELIHOOD_METRICS
from reports.figures import interval, measured, percent, unit
from reports.parts import Chart, Section, Table
from reports.plots import by_legend, chart, colour, highlight, legend, tooltips


def trained(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The variants that this run fine-tuned."""
    return [v for v in run["variants"] if v.get("training")]


def _first_seed(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [v for v in trained(run) if v["name"].endswith("-recovered")]


def recovery_sentences(run: Mapping[str, Any]) -> Iterator[str]:
    """Per fine-tuned variant of the first seed: before, after, and against the dense model fine-tuned the same way; and
    the gain over all seeds.
    """
    changes = {(c["baseline"], c["variant"]): c for c in run["comparisons"] if c["task"] == run["task"]}
    pooled = {r["before"]: r for r in run.get("recoveries") or () if r["task"] == run["task"] and r.get("seeds", 1) > 1}
    for v in _first_seed(run):
        before = _before(run, v["name"])
        change, control = changes[before["name"], v["name"]], _control(run, v["name"])
        then, now = (measured(change["metric"], x["eval"][run["task"]]["value"]) for x in (before, v))
        text = (
            f"Fine-tuning {before['name']} on {v['training']['tokens']:,} tokens takes "
            f"{run['task']} from {then} to {now}: {_said(change)}."
        )
        if control:
            text += f" Against {control['name']}, trained the same way: {_said(changes[control['name'], v['name']])}."
        if r := pooled.get(before["name"]):
            gain, low, high = (f"{100 * x:+.1f}" for x in r["gain"])
            text += f" Over {r['seeds']} seeds of fine-tuning it gains {gain} points ({low} to {high})."
        yield text


def _said(change: Mapping[str, Any]) -> str:
    difference, low, high = interval(change)
    return f"{difference}{unit(change['metric'])} ({low} to {high})"


def _before(run: Mapping[str, Any], recovered: str) -> Mapping[str, Any]:
    name = recovered.removesuffix("-recovered")
    return next(v for v in run["variants"] if v["name"] == name)


def _control(run: Mapping[str, Any], recovered: str) -> Mapping[str, Any] | None:
    """The base model fine-tuned the same way; None for that variant itself."""
    name = f"{run['variants'][0]['name']}-recovered"
    return next((v for v in run["variants"] if v["name"] == name != recovered), None)


def section(run: Mapping[str, Any]) -> Section:
    made = recovery_tables(run)
    return Section(
        name="recovery",
        title="Recovery by fine-tuning",
        text=tuple(recovery_sentences(run)),
        charts=tuple(_charts(run)),
        tables=tuple(made[:1]),
        folded=tuple(made[1:]),
    )


def recovery_tables(run: Mapping[str, Any]) -> list[Table]:
    made = [_gap_recovered(run), _trainings(run), _curves(run)]
    return [table for table in made if table.rows]


def _gap_recovered(run: Mapping[str, Any]) -> Table:
    head = ("variant", "task", "n", "seeds", "gap recovered", "margin over half, points", "95 % interval (paired)")
    rows = [
        (
            r["variant"],
            r["task"],
            str(r["n"]),
            str(r.get("seeds", 1)),
            percent(r["share"]) if r["share"] is not None else "no clear gap",
            f"{100 * r['margin_over_half']:+.1f}",
            f"{100 * r['ci_low']:+.1f} to {100 * r['ci_high']:+.1f}",
        )
        for r in run.get("recoveries") or ()
    ]
    note = (
        "gap recovered: (fine-tuned - pruned) / (dense fine-tuned the same way - pruned). "
        "margin over half: fine-tuned minus the mean of "
        "the other two; above 0 means that at least half of the gap was recovered. Means over seeds of fine-tuning, "
        "of one mask of random pruning; the interval is over seeds and items, of one seed over items alone."
    )
    return Table("Gap recovered by fine-tuning", head, tuple(rows), note)


def _trainings(run: Mapping[str, Any]) -> Table:
    head = (
        "variant",
        "tuning",
        "data",
        "examples",
        "steps",
        "tokens",
        "learning rate",
        "first loss",
        "last loss",
        "seconds",
    )
    rows = [
        (
            v["name"],
            t["recipe"]["tuning"],
            t["source"],
            f"{t['examples']:,}",
            str(t["steps"]),
            f"{t['tokens']:,}",
            f"{t['recipe']['learning_rate']:g}",
            f"{t['loss'][0]['loss']:.3f}",
            f"{t['loss'][-1]['loss']:.3f}",
            f"{t['seconds']:.0f}",
        )
        for v in trained(run)
        for t in [v["training"]]
        if t["loss"]
    ]
    return Table(
        "Fine-tuning",
        head,
        tuple(rows),
        (
            "Loss in nats per answer token; with a teacher, mixed with the divergence from it. Tokens "
            "include prompts and are the same for all arms."
        ),
    )


def _curves(run: Mapping[str, Any]) -> Table:
    head = ("variant", "step", "tokens", "n", run["task"], "95 % interval", "failures")
    rows = [
        (
            v["name"],
            str(p["step"]),
            f"{p['tokens']:,}",
            str(p["n"]),
            percent(p["value"]),
            f"{percent(p['ci_low'])} to {percent(p['ci_high'])}",
            percent(p["failure_rate"]),
        )
        for v in trained(run)
        for p in v["training"]["curve"]
        if _is_share(run)
    ]
    return Table(
        "Accuracy during training",
        head,
        tuple(rows),
        "On the first n items of the test split, before, during and after training; Accuracy has all items.",
    )


def _is_share(run: Mapping[str, Any]) -> bool:
    return run["variants"][0]["eval"][run["task"]]["metric"] not in LIKELIHOOD_METRICS


def _charts(run: Mapping[str, Any]) -> Iterator[Chart]:
    """The loss, then accuracy and failures during training, against training tokens; of the first seed."""
    import altair as alt

    shown = _first_seed(run)
    names = [v["name"] for v in shown]
    rows = [
        {"variant": v["name"], "tokens": p["tokens"], "loss": p["loss"]} for v in shown for p in v["training"]["loss"]
    ]
    if rows:
        scale = alt.Scale(type="symlog", constant=0.01)
        lines = _over_tokens(
            rows, names, alt.Y("loss:Q", title="loss, nats per answer token", scale=scale), point=False
        )
        what = "Training loss against tokens; the table Fine-tuning has the first and last"
        yield Chart("training loss", what, lines, legend=legend(names))
    for what, title, value in (
        ("accuracy", f"{run['task']}, %", "value"),
        ("failures", "generation failures, %", "failure_rate"),
    ):
        points = [
            {"variant": v["name"], "tokens": p["tokens"], what: 100 * p[value]}
            for v in shown
            for p in v["training"]["curve"]
            if _is_share(run) and p[value] is not None
        ]
        if points:
            lines = _over_tokens(points, names, alt.Y(f"{what}:Q", title=title, scale=alt.Scale(domain=[0, 100])))
            yield Chart(
                f"{what} during training",
                f"{what} against training tokens; also in the table Accuracy during training",
                lines,
                legend=legend(names),
            )


def _over_tokens(rows: list[dict[str, Any]], names: list[str], y: Any, point: bool = True) -> Any:
    import altair as alt

    mark = chart(rows).mark_line(point=point, interpolate="monotone")
    return mark.encode(
        x=alt.X("tokens:Q", title="training tokens"),
        y=y,
        color=colour("variant", names),
        opacity=by_legend("variant", 1, 0.12),
        tooltip=tooltips(rows),
    ).add_params(highlight())

"""What fine-tuning brought back: sentences, tables and charts of the variants that were fine-tuned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports.figures import LIKELIHOODS, Table, interval, measured, percent, unit


def trained(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The variants that this run fine-tuned."""
    return [v for v in run["variants"] if v.get("training")]


def recovery_sentences(run: Mapping[str, Any]) -> Iterator[str]:
    """Per fine-tuned variant: before, after, and beside the dense model fine-tuned the same way."""
    changes = {(c["baseline"], c["variant"]): c for c in run["comparisons"] if c["task"] == run["task"]}
    for v in trained(run):
        before = _before(run, v["name"])
        change, control = changes[before["name"], v["name"]], _control(run, v["name"])
        then, now = (measured(change["metric"], x["eval"][run["task"]]["value"]) for x in (before, v))
        text = (
            f"Fine-tuning {before['name']} on {v['training']['tokens']:,} tokens takes {run['task']} from {then} to {now}: {_said(change)}."
        )
        if control:
            text += f" Against {control['name']}, trained the same way: {_said(changes[control['name'], v['name']])}."
        yield text


def _said(change: Mapping[str, Any]) -> str:
    difference, low, high = interval(change)
    return f"{difference}{unit(change['metric'])} ({low} to {high})"


def _before(run: Mapping[str, Any], recovered: str) -> Mapping[str, Any]:
    name = recovered.removesuffix("-recovered")
    return next(v for v in run["variants"] if v["name"] == name)


def _control(run: Mapping[str, Any], recovered: str) -> Mapping[str, Any] | None:
    """The model as it was given, fine-tuned the same way, where this is not it."""
    name = f"{run['variants'][0]['name']}-recovered"
    return next((v for v in run["variants"] if v["name"] == name != recovered), None)


def recovery_tables(run: Mapping[str, Any]) -> list[Table]:
    made = [_brought_back(run), _trainings(run), _curves(run)]
    return [table for table in made if table.rows]


def _brought_back(run: Mapping[str, Any]) -> Table:
    head = ("variant", "task", "n", "brought back", "beyond half, points", "95 % interval (paired)")
    rows = [
        (
            r["variant"], r["task"], str(r["n"]), percent(r["share"]) if r["share"] is not None else "no clear gap",
            f"{100 * r['beyond_half']:+.1f}", f"{100 * r['ci_low']:+.1f} to {100 * r['ci_high']:+.1f}",
        )
        for r in run.get("recoveries") or ()
    ]  # fmt: skip
    note = (
        "brought back: (fine-tuned - pruned) / (dense fine-tuned the same way - pruned). beyond half: fine-tuned minus the mean of "
        "these two; above 0 means that at least half was brought back."
    )
    return Table("What fine-tuning brought back", head, tuple(rows), note)


def _trainings(run: Mapping[str, Any]) -> Table:
    head = ("variant", "tuning", "data", "examples", "steps", "tokens", "learning rate", "first loss", "last loss", "seconds")
    rows = [
        (
            v["name"], t["recipe"]["tuning"], t["source"], f"{t['examples']:,}", str(t["steps"]), f"{t['tokens']:,}",
            f"{t['recipe']['learning_rate']:g}", f"{t['loss'][0]['loss']:.3f}", f"{t['loss'][-1]['loss']:.3f}", f"{t['seconds']:.0f}",
        )
        for v in trained(run) for t in [v["training"]]
    ]  # fmt: skip
    return Table(
        "Fine-tuning",
        head,
        tuple(rows),
        "Loss in nats per answer token, with a teacher mixed with the divergence from it. Tokens with prompts, the same for all arms.",
    )


def _curves(run: Mapping[str, Any]) -> Table:
    head = ("variant", "step", "tokens", "n", run["task"], "95 % interval", "failures")
    rows = [
        (
            v["name"], str(p["step"]), f"{p['tokens']:,}", str(p["n"]), percent(p["value"]),
            f"{percent(p['ci_low'])} to {percent(p['ci_high'])}", percent(p["failure_rate"]),
        )
        for v in trained(run) for p in v["training"]["curve"] if _is_share(run)
    ]  # fmt: skip
    return Table(
        "Accuracy on the way",
        head,
        tuple(rows),
        "On the first n items of the test split only, before, on the way and after; all items stand under Accuracy.",
    )


def _is_share(run: Mapping[str, Any]) -> bool:
    return run["variants"][0]["eval"][run["task"]]["metric"] not in LIKELIHOODS


def recovery_charts(run: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(description, altair chart) of the loss, and of accuracy and failures on the way."""
    if not trained(run):
        return []
    made = [("Training loss; the table Fine-tuning holds its ends", _loss_chart(run))]
    if _is_share(run):
        made.append(
            ("Accuracy and failures against training tokens; the table Accuracy on the way holds the same figures", _curve_chart(run))
        )
    return made


def _loss_chart(run: Mapping[str, Any]) -> Any:
    import altair as alt

    rows = [{"variant": v["name"], "tokens": p["tokens"], "loss": p["loss"]} for v in trained(run) for p in v["training"]["loss"]]
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(interpolate="monotone", opacity=0.8)
        .encode(
            x=alt.X("tokens:Q", title="training tokens"),
            y=alt.Y("loss:Q", title="loss, nats per answer token", scale=alt.Scale(type="symlog", constant=0.01)),
            color=_colour(run),
        )
        .properties(width=420, height=220)
    )


def _curve_chart(run: Mapping[str, Any]) -> Any:
    import altair as alt

    rows = [
        {"variant": v["name"], "tokens": tokens, "share": 100 * value, "what": what}
        for v in trained(run)
        for tokens, accuracy, failures in _points(v)
        for what, value in (("right", accuracy), ("failed", failures))
        if value is not None
    ]
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_line(point=True)
        .encode(
            x=alt.X("tokens:Q", title="training tokens"),
            y=alt.Y("share:Q", title=f"{run['task']}, %", scale=alt.Scale(domain=[0, 100])),
            color=_colour(run),
            strokeDash=alt.StrokeDash(
                "what:N", sort=["right", "failed"], title=None, legend=alt.Legend(orient="bottom", symbolType="stroke")
            ),
        )
        .properties(width=420, height=220)
    )


def _points(v: Mapping[str, Any]) -> Iterator[tuple[int, float, float | None]]:
    """(tokens, accuracy, failure rate) before, on the way and after, all on the same items."""
    for p in v["training"]["curve"]:
        yield p["tokens"], p["value"], p["failure_rate"]


def _colour(run: Mapping[str, Any]) -> Any:
    import altair as alt

    names = [v["name"] for v in trained(run)]
    return alt.Color("variant:N", sort=names, title=None, legend=alt.Legend(orient="bottom", columns=1, labelLimit=400))

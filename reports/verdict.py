"""The verdict: whether to prune and how far, what it costs, what it saves, and the commands that produce the
model.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.contained_files import leads_out
from harness.core.labels import arm_label
from harness.core.run_file import command_of
from harness.core.run_plans import checkpoint_name, plan_name
from harness.core.statistics import is_able
from reports.figures import interval, measured, mebibytes, percent, unit
from reports.sections.claims import sweep_sentences
from reports.sections.dissociation import dissociation_sentences
from reports.sections.recovery import recovery_sentences
from reports.sections.serving import is_noisy, serving_sentences


@dataclass(frozen=True)
class Choice:
    """The variant that the verdict is about, and whether it was shown to lose less than `margin` (None: no margin was
    declared). `everywhere`: on every task that the dense model can do. `farther`: the arm and the ratio that go farther
    on the target alone.
    """

    variant: Mapping[str, Any]
    margin: float | None = None
    shown: bool = True
    everywhere: bool = False
    farther: tuple[str, float] | None = None


def choice(run: Mapping[str, Any]) -> Choice | None:
    """The recommended variant; None where nothing was pruned from a dense model.

    In a sweep: the largest ratio shown to lose less than the margin on every task, else on the target alone, or else
    the smallest ratio.
    """
    by_name = {v["name"]: v for v in run["variants"]}
    if run.get("dissociation"):
        return None
    if run.get("sweep"):
        return _of_sweep(run, by_name)
    pruned = next((v for v in run["variants"][1:] if v["method"] != "dense" and not v["recovered"]), None)
    compared = any(c["variant"] == pruned["name"] for c in run["comparisons"]) if pruned else False
    return Choice(pruned) if pruned and compared and run["variants"][0]["method"] == "dense" else None


def _of_sweep(run: Mapping[str, Any], by_name: Mapping[str, Mapping[str, Any]]) -> Choice | None:
    points = [
        p
        for p in run["sweep"]["points"]
        if p["task"] == run["task"] and by_name[p["variants"][0]]["method"] not in ("reverse", "matched")
    ]
    reach, everywhere = (
        {t["arm"]: t.get(key) or 0.0 for t in run["sweep"]["thresholds"]} for key in ("non_inferior", "everywhere")
    )
    if not points or not reach:
        return None
    margin, target, safe = (
        run["sweep"]["thresholds"][0]["margin"],
        _farthest(points, reach),
        _farthest(points, everywhere),
    )
    if target is None:
        smallest = min(points, key=lambda p: (p["ratio_neurons"], -p["value"]))
        return Choice(by_name[smallest["variants"][0]], margin, False)
    if safe is None:
        return Choice(by_name[target["variants"][0]], margin)
    farther = (target["arm"], target["ratio_neurons"]) if target["ratio_neurons"] > safe["ratio_neurons"] else None
    return Choice(by_name[safe["variants"][0]], margin, everywhere=True, farther=farther)


def _farthest(points: Sequence[Mapping[str, Any]], reach: Mapping[str, float]) -> Mapping[str, Any] | None:
    """The point at the largest ratio up to which its arm holds; None where none does."""
    held = [p for p in points if 0 < p["ratio_neurons"] <= reach.get(p["arm"], 0.0) + 1e-9]
    return max(held, key=lambda p: (p["ratio_neurons"], p["value"]), default=None)


def verdict(run: Mapping[str, Any]) -> list[str]:
    """Three sentences with figures: how far, at what cost, for what gain. For a run that pruned nothing, what it
    measured.
    """
    if run.get("dissociation"):
        return dissociation_sentences(run)
    chosen = choice(run)
    if chosen is not None:
        return [_how_far(run, chosen), _cost(run, chosen.variant), _gain(run, chosen.variant)]
    if not run.get("sweep"):
        return [*serving_sentences(run), *recovery_sentences(run)]
    if not run["sweep"]["points"]:
        return ["No pruned variant of this sweep could be evaluated; see Failed cells for the reasons."]
    metric = run["variants"][0]["eval"][run["task"]]["metric"]
    return [
        f"{run['task']} is measured as {metric}, which has no right answers; read from the curves how far to prune."
    ]


def sentences(run: Mapping[str, Any]) -> list[str]:
    """The verdict in sentences, for the terminal and Markdown, then the claims, or speed and recovery
    one by one.
    """
    if run.get("sweep"):
        return [*verdict(run), *sweep_sentences(run)]
    if run.get("dissociation"):
        return verdict(run)
    said, chosen = verdict(run), choice(run)
    told = f"Output tokens per second of {chosen.variant['name']} " if chosen else ""  # by the verdict
    more = [line for line in serving_sentences(run) if not (told and line.startswith(told))]
    return list(dict.fromkeys([*said, *more, *recovery_sentences(run)]))


def _how_far(run: Mapping[str, Any], chosen: Choice) -> str:
    v, target = chosen.variant, _changes(run, chosen.variant)[run["task"]]
    before, after = (_result(target, x["eval"][run["task"]]) for x in (run["variants"][0], v))
    difference, low, high = interval(target)
    change = (
        f"changes {run['task']} from {before} to {after}: {difference}{unit(target['metric'])}, "
        f"95 % interval {low} to {high}, n = {target['n']}"
    )
    removed = (
        f"removing {percent(v['ratio_neurons'])} of the FFN neurons "
        f"({percent(v['ratio_parameters'])} of all parameters) by {_name(v)}"
    )
    if chosen.margin is None:
        return f"{removed[0].upper()}{removed[1:]} {change}."
    if not chosen.shown:
        return (
            f"No ratio tried is shown to lose less than {100 * chosen.margin:g} "
            f"points. The smallest, {removed}, {change}."
        )
    lost = f"Prune up to here to lose less than {100 * chosen.margin:g} points"
    if chosen.everywhere:
        elsewhere = run["sweep"]["thresholds"][0].get("off_target_margin") or chosen.margin
        others = (
            "on every task" if elsewhere == chosen.margin else f"and {100 * elsewhere:g} points on every other task"
        )
        more = chosen.farther and f" On {run['task']} alone: {percent(chosen.farther[1])}, by {chosen.farther[0]}."
        return f"{lost} {others} that dense can do: {removed} {change}.{more or ''}"
    if any(t.get("everywhere") is not None for t in run["sweep"]["thresholds"]):
        return f"{lost} on {run['task']} alone, not shown for the other tasks: {removed} {change}."
    return f"{lost}: {removed} {change}."


def _result(comparison: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A value, with its count where answers are right or wrong."""
    shown = measured(comparison["metric"], found["value"])
    return shown if comparison["lost"] is None else f"{shown} ({round(found['value'] * found['n'])} right)"


def _cost(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    others = [
        _off_target(task, c, run["variants"][0]["eval"][task])
        for task, c in _changes(run, v).items()
        if task != run["task"]
    ]
    before, after = (x["eval"][run["task"]]["failure_rate"] for x in (run["variants"][0], v))
    known = before is not None or after is not None
    failures = f"; generation failures on {run['task']} go from {percent(before)} to {percent(after)}" if known else ""
    elsewhere = f"Off target: {', '.join(others)}" if others else "Nothing off target was measured"
    return f"{elsewhere}{failures}."


def _off_target(task: str, c: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    if c["lost"] is not None and not is_able(round(dense["value"] * dense["n"]), dense["n"]):
        return f"{task}: cannot say, the dense model solves {percent(dense['value'])}"
    difference, low, high = interval(c)
    return f"{task} {difference}{unit(c['metric'])} ({low} to {high})"


def _gain(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    dense = run["variants"][0]
    weights = (
        f"Weights shrink from {mebibytes(dense['weight_bytes'])} to {mebibytes(v['weight_bytes'])} "
        f"({100 * (v['weight_bytes'] / dense['weight_bytes'] - 1):+.1f} %)"
    )
    speeds = list(_speeds(run, v))
    return (
        f"{weights}; output tokens per second {', '.join(speeds)}."
        if speeds
        else f"{weights}; its speed was not measured."
    )


def _speeds(run: Mapping[str, Any], v: Mapping[str, Any]) -> Iterator[str]:
    """Speed ratios of the variant, or of another variant of the same widths, on which alone speed depends."""
    same = [x["name"] for x in run["variants"] if x["intermediate_sizes"] == v["intermediate_sizes"]]
    known = [
        r
        for r in run.get("speed_ratios", ())
        if r["quantity"] == "output_tok_s" and r["baseline"] == run["variants"][0]["name"]
    ]
    timed = next((name for name in (v["name"], *same) if any(r["variant"] == name for r in known)), None)
    for r in known:
        if r["variant"] == timed:
            at = f"at concurrency {r['concurrency']}"
            if r["ci_low"] is None:
                yield f"{r['ratio']:.2f} times dense {at}, one pair of passes"
                continue
            times = f"{r['ratio']:.2f} times dense ({r['ci_low']:.2f} to {r['ci_high']:.2f})"
            undecided = r["ci_low"] <= 1 <= r["ci_high"]
            doubts = ["noisy"] * is_noisy(run, r) + ["not decided"] * undecided
            yield f"{' and '.join(doubts)}{', ' if doubts else ''}{times} {at}"


def _changes(run: Mapping[str, Any], v: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    dense = run["variants"][0]["name"]
    return {c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (dense, v["name"])}


def _name(v: Mapping[str, Any]) -> str:
    return arm_label(v["method"], v["metric"], v["compensated"], _is_sequential(v), v["allocation"])


def _is_sequential(v: Mapping[str, Any]) -> bool:
    return "sequential" in v["name"].split("-")


def commands(run: Mapping[str, Any], folder: Path) -> list[str]:
    """The commands that write the recommended model and serve it; none where no declared margin holds. Where the plan
    is gone, the run's own command, which makes it, comes first.
    """
    chosen = choice(run)
    if chosen is None or not chosen.shown:
        return []
    v = chosen.variant
    if v["checkpoint"] and not leads_out(folder, v["checkpoint"]):
        return [serve_line(run, f"{folder}/{v['checkpoint']}")]
    plan = plan_name(run, v["name"])
    if leads_out(folder, plan):
        return []
    again = None if (folder / plan).exists() else command_of(folder, run)
    write = shlex.join(["harness", "prune", str(folder), "--best"])
    return [*filter(None, [again]), write, serve_line(run, f"{folder}/{checkpoint_name(plan)}")]


def serve_line(run: Mapping[str, Any], checkpoint: str) -> str:
    """vLLM's server with the GPUs and the options of vLLM's that the run's engines had."""
    engine = run.get("engine") or {"tensor_parallel": 1, "options": {}}
    gpus = engine["tensor_parallel"]
    options = {**({"tensor_parallel_size": gpus} if gpus > 1 else {}), **engine["options"]}
    flags: list[str] = []
    for name, value in options.items():
        option = name.replace("_", "-")
        flags += [f"--{'' if value else 'no-'}{option}"] if isinstance(value, bool) else [f"--{option}", str(value)]
    return shlex.join(["vllm", "serve", checkpoint, *flags])

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
from harness.core.labels import RECONSTRUCTED, arm_label
from harness.core.run_file import command_of
from harness.core.run_plans import checkpoint_name, plan_name
from harness.core.statistics import is_able
from harness.core.types.evaluation import has_right_answers
from reports.figures import (
    interval,
    measured,
    mebibytes,
    not_judged,
    percent,
    removed_text,
    seconds_text,
    unit,
)
from reports.sections.claims import sweep_sentences
from reports.sections.dissociation import dissociation_sentences
from reports.sections.goal import chosen_candidate, goal_lead, unlimited_tasks
from reports.sections.recovery import recovery_sentences
from reports.sections.serving import (
    is_beyond_one,
    is_noisy,
    is_shown,
    own_noise,
    per_right_answer,
    serving_sentences,
    speeds_of,
)

_UNCOMPARED = "not compared with dense against itself"


@dataclass(frozen=True)
class Choice:
    """The variant that the verdict is about, and whether it was shown to lose less than `margin` (None: no margin was
    declared). `everywhere`: on every task with right answers that the dense model can do. `farther`: the arm and the
    ratio that go farther on the target alone. `sole`: no other task was measured that can be judged. `exploratory`:
    other arms, how far each goes beyond this one, and on what.
    """

    variant: Mapping[str, Any]
    margin: float | None = None
    shown: bool = True
    everywhere: bool = False
    farther: tuple[str, float] | None = None
    sole: bool = False
    exploratory: tuple[tuple[str, float, str], ...] = ()


def choice(run: Mapping[str, Any]) -> Choice | None:
    """The recommended variant; None where nothing was pruned from a dense model.

    With a goal: what meets it, or what comes nearest. In a sweep: of `fixed_arm`, the largest ratio shown to lose less
    than the margin on every task, else on the target alone, or else the smallest ratio.
    """
    by_name = {v["name"]: v for v in run["variants"]}
    if run.get("dissociation"):
        return None
    if found := run.get("goal"):
        return Choice(by_name[chosen_candidate(found)["variant"]], shown=bool(found["found"]))
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
    arm = fixed_arm(points, by_name)
    own = [p for p in points if p["arm"] == arm]
    margin, target, safe = run["sweep"]["thresholds"][0]["margin"], _farthest(own, reach), _farthest(own, everywhere)
    beyond = (*_beyond(points, arm, everywhere, "every task"), *_beyond(points, arm, reach, "the target"))
    if target is None:
        smallest = min(own, key=lambda p: float(p["ratio_neurons"]))
        return Choice(by_name[smallest["variants"][0]], margin, False, exploratory=beyond)
    if safe is None:
        others = (e for task, e in run["variants"][0]["eval"].items() if task != run["task"])
        sole = all(is_floor(e) or not has_right_answers(e["metric"]) for e in others)
        return Choice(by_name[target["variants"][0]], margin, sole=sole, exploratory=beyond)
    farther = (target["arm"], target["ratio_neurons"]) if target["ratio_neurons"] > safe["ratio_neurons"] else None
    return Choice(by_name[safe["variants"][0]], margin, everywhere=True, farther=farther, exploratory=beyond)


def fixed_arm(points: Sequence[Mapping[str, Any]], by_name: Mapping[str, Mapping[str, Any]]) -> str:
    """The one arm that can be recommended, known before any result: `best`, else the first selective one. Each arm is
    tested at 5 %, so that the best of several would be wrong more often than that.
    """

    def rank(arm: str) -> tuple[bool, bool, bool]:
        parts, first = arm.split("-"), next(p for p in points if p["arm"] == arm)
        best = "best" in parts
        return by_name[first["variants"][0]]["method"] != "selective", not best, best and RECONSTRUCTED in parts

    return str(min(dict.fromkeys(p["arm"] for p in points), key=rank))


def _beyond(
    points: Sequence[Mapping[str, Any]], arm: str, reach: Mapping[str, float], where: str
) -> Iterator[tuple[str, float, str]]:
    """The other arms that hold up to a larger ratio, which is no more than a reason to look again."""
    held = {
        name: found["ratio_neurons"]
        for name in dict.fromkeys(p["arm"] for p in points)
        if (found := _farthest([p for p in points if p["arm"] == name], reach))
    }
    return ((name, ratio, where) for name, ratio in held.items() if ratio > held.get(arm, 0.0))


def _farthest(points: Sequence[Mapping[str, Any]], reach: Mapping[str, float]) -> Mapping[str, Any] | None:
    """The point at the largest ratio up to which its arm holds; None where none does."""
    held = [p for p in points if 0 < p["ratio_neurons"] <= reach.get(p["arm"], 0.0) + 1e-9]
    return max(held, key=lambda p: (p["ratio_neurons"], p["value"]), default=None)


def verdict(run: Mapping[str, Any]) -> list[str]:
    """Lines with figures: how far, at what cost, for what gain. For a run that pruned nothing, what it measured."""
    if run.get("dissociation"):
        return dissociation_sentences(run)
    chosen = choice(run)
    if chosen is not None:
        at = f" at {percent(chosen.variant['ratio_neurons'])}" if chosen.farther else ""
        return [*_how_far(run, chosen), _cost(run, chosen.variant, at), _gain(run, chosen.variant)]
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
    if run.get("dissociation") or run.get("goal"):
        return verdict(run)
    said, chosen = verdict(run), choice(run)
    told = f"Output tokens per second of {chosen.variant['name']} " if chosen else ""  # by the verdict
    more = [line for line in serving_sentences(run) if not (told and line.startswith(told))]
    return list(dict.fromkeys([*said, *more, *recovery_sentences(run)]))


def _how_far(run: Mapping[str, Any], chosen: Choice) -> list[str]:
    """The recommended ratio with what it does to the target, then what goes farther on the target alone."""
    v = chosen.variant
    removed = f"{removed_text(v)} ({percent(v['ratio_parameters'])} of all parameters) by {_name(v)}"
    change, faster = _target_change(run, v), _faster(run, v)
    if run.get("goal"):
        return [goal_lead(run["goal"]) + unlimited_tasks(run), f"Removing {removed} changes {change}.{faster}"]
    if chosen.margin is None:
        return [f"Removing {removed} changes {change}.{faster}"]
    margin, rest = f"{100 * chosen.margin:g} points", _exploratory(v, chosen)
    if not chosen.shown:
        return [
            f"No ratio tried of {_name(v)} is shown to lose less than {margin}. The smallest, removing {removed}, "
            f"changes {change}.{faster}",
            *rest,
        ]
    unjudged = not_judged(run, v)
    if not chosen.everywhere:
        lead = "Safe on the target, the only task to be judged" if chosen.sole else "Target only"
        doubt = "" if chosen.sole else ", not shown for the other tasks"
        return [
            f"{lead}: {removed}, shown to lose less than {margin} on {run['task']}{doubt}.{unjudged} It changes "
            f"{change}.{faster}",
            *rest,
        ]
    elsewhere = run["sweep"]["thresholds"][0].get("off_target_margin") or chosen.margin
    others_too = (
        "on every task with right answers"
        if elsewhere == chosen.margin
        else f"and {100 * elsewhere:g} points on every other task with right answers"
    )
    said = f"Safe everywhere: {removed}, shown to lose less than {margin} {others_too} that dense can do.{unjudged}"
    return [f"{said} It changes {change}.{faster}", *_farther(run, chosen), *rest]


def _exploratory(v: Mapping[str, Any], chosen: Choice) -> list[str]:
    """The arms that go farther than the one that was fixed before looking."""
    found = [f"{arm} goes to {percent(ratio)} on {where}, exploratory" for arm, ratio, where in chosen.exploratory]
    return [f"Only {_name(v)} was to be recommended, as was fixed before looking: {'; '.join(found)}."] if found else []


def _target_change(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    target = _changes(run, v)[run["task"]]
    before, after = (_result(target, x["eval"][run["task"]]) for x in (run["variants"][0], v))
    difference, low, high = interval(target)
    return (
        f"{run['task']} from {before} to {after}: {difference}{unit(target['metric'])}, "
        f"95 % interval {low} to {high}, n = {target['n']}"
    )


def _farther(run: Mapping[str, Any], chosen: Choice) -> list[str]:
    """What the target alone would bear, and what the other tasks lose there."""
    if chosen.farther is None:
        return []
    arm, ratio = chosen.farther
    name = next(p["variants"][0] for p in run["sweep"]["points"] if (p["arm"], p["ratio_neurons"]) == (arm, ratio))
    v = next(v for v in run["variants"] if v["name"] == name)
    lost = ", ".join(_elsewhere(run, v)) or "the other tasks were not measured"
    return [f"Target only: {percent(ratio)} by {arm}, with {lost}."]


def _faster(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    """Whether a gain of speed is shown, for the headline; nothing where it was not measured."""
    known = speeds_of(run, v)
    steady = [r for r in known if r["ratio"] > 1 and not is_noisy(run, r)]
    shown = [f"{r['concurrency']}" for r in steady if is_shown(run, r)]
    alone = [f"{_times(r)} at concurrency {r['concurrency']}" for r in steady if _is_uncompared(run, r)]
    if not known:
        return ""
    noisy = ": the timing was noisy" if any(is_noisy(run, r) for r in known) else ""
    if shown or not alone:
        return f" Faster at concurrency {', '.join(shown)}." if shown else f" A gain of speed is not shown{noisy}."
    return f" Output tokens per second {', '.join(alone)}, {_UNCOMPARED}."


def _result(comparison: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """A value, with its count where answers are right or wrong."""
    shown = measured(comparison["metric"], found["value"])
    return shown if comparison["lost"] is None else f"{shown} ({round(found['value'] * found['n'])} right)"


def _cost(run: Mapping[str, Any], v: Mapping[str, Any], at: str) -> str:
    others = _elsewhere(run, v)
    before, after = (x["eval"][run["task"]]["failure_rate"] for x in (run["variants"][0], v))
    known = before is not None or after is not None
    failures = f"; generation failures on {run['task']} go from {percent(before)} to {percent(after)}" if known else ""
    elsewhere = f"Off target{at}: {', '.join(others)}" if others else "Nothing off target was measured"
    return f"{elsewhere}{failures}."


def _elsewhere(run: Mapping[str, Any], v: Mapping[str, Any]) -> list[str]:
    """The change on every other task."""
    dense = run["variants"][0]["eval"]
    return [_off_target(task, c, dense[task]) for task, c in _changes(run, v).items() if task != run["task"]]


def is_floor(dense: Mapping[str, Any]) -> bool:
    """Whether the dense model does a task so badly that pruning has nothing to lose there."""
    judged = has_right_answers(dense["metric"]) and 0 <= dense["value"] <= 1
    return judged and not is_able(round(dense["value"] * dense["n"]), dense["n"])


def _off_target(task: str, c: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    if is_floor(dense):
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
    said = f"output tokens per second {', '.join(speeds)}" if speeds else "its speed was not measured"
    return f"{weights}; {said}{_per_right(run, v)}."


def _per_right(run: Mapping[str, Any], v: Mapping[str, Any]) -> str:
    found = [per_right_answer(run, x) for x in (run["variants"][0], v)]
    then, now = found
    if then is None or now is None:
        return ""
    tokens = f"; tokens for each right answer {then[0]:.1f} before and {now[0]:.1f} after"
    if then[1] is None or now[1] is None:
        return tokens
    return f"{tokens}, time {seconds_text(then[1])} and {seconds_text(now[1])}"


def _speeds(run: Mapping[str, Any], v: Mapping[str, Any]) -> Iterator[str]:
    for r in speeds_of(run, v):
        at = f"at concurrency {r['concurrency']}"
        if r["ci_low"] is None:
            yield f"{r['ratio']:.2f} times dense {at}, one pair of passes"
            continue
        doubts = ["noisy"] * is_noisy(run, r) + _undecided(run, r)
        yield f"{' and '.join(doubts)}{', ' if doubts else ''}{_times(r)} {at}"


def _times(r: Mapping[str, Any]) -> str:
    return f"{r['ratio']:.2f} times dense ({r['ci_low']:.2f} to {r['ci_high']:.2f})"


def _is_uncompared(run: Mapping[str, Any], r: Mapping[str, Any]) -> bool:
    return is_beyond_one(r) and own_noise(run, r) is None


def _undecided(run: Mapping[str, Any], r: Mapping[str, Any]) -> list[str]:
    if is_shown(run, r):
        return []
    if not is_beyond_one(r):
        return ["not decided"]
    noise = own_noise(run, r)  # with it, 1 is left out and yet no more than by chance
    return [f"not beyond dense against itself ({noise[0]:.2f} to {noise[1]:.2f})" if noise else _UNCOMPARED]


def _changes(run: Mapping[str, Any], v: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    dense = run["variants"][0]["name"]
    return {c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (dense, v["name"])}


def _name(v: Mapping[str, Any]) -> str:
    parts = v["name"].split("-")
    refit = v["compensated"], "sequential" in parts
    return arm_label(v["method"], v["metric"], *refit, v["allocation"], RECONSTRUCTED in parts)


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

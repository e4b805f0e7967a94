"""A goal in place of a ratio: what was found, what comes nearest, and every candidate with what it keeps and misses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from harness.core.types.goal import Goal
from reports.figures import count_text, not_judged, percent, short_count
from reports.parts import Section, Table

_TITLE = "The goal"


def section(run: Mapping[str, Any]) -> Section:
    if not run.get("goal"):
        return Section("goal", _TITLE)
    said = [*search_sentences(run["goal"]), unlimited_tasks(run).strip()]
    return Section("goal", _TITLE, text=tuple(filter(None, said)), tables=(goal_table(run),))


def unlimited_tasks(run: Mapping[str, Any]) -> str:
    """What no limit of loss holds for, in a goal that limits the loss on every other task."""
    if _goal(run["goal"]).off_target_loss is None:
        return ""
    name = chosen_candidate(run["goal"])["variant"]
    return not_judged(run, next(v for v in run["variants"] if v["name"] == name))


def goal_lead(found: Mapping[str, Any]) -> str:
    """Which candidate meets the goal, or that none does and which comes nearest, up to what it removes."""
    asked, candidate = " ".join(_goal(found).options), chosen_candidate(found)
    best = "Smallest" if _goal(found).limits_loss else "Most accurate"
    kept = ", ".join(condition_text(c) for c in candidate["conditions"] if c["quantity"] != "right")
    if found["found"]:
        return f"{best} model found that meets {asked}: {candidate['variant']}, with {kept}."
    missed = ", ".join(condition_text(c) for c in candidate["conditions"] if not c["met"])
    return f"No model was found that meets {asked}. Nearest comes {candidate['variant']}, with {missed}."


def chosen_candidate(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """The candidate that was found, or the nearest."""
    name = found["found"] or found["nearest"]
    chosen: Mapping[str, Any] = next(c for c in found["candidates"] if c["variant"] == name)
    return chosen


def search_sentences(found: Mapping[str, Any]) -> list[str]:
    """Where was looked, and what the bounds mean."""
    low, high, count = found["widths"]
    if found.get("joint"):
        return joint_sentences(found)
    said = [f"{count_text(count, 'FFN width')} from {low} to {high} could meet what follows from the width alone."]
    if found["looks"]:
        said.append(
            f"Each loss is the upper end of a one-sided interval, paired by item, at {percent(found['level'], 2)}: 5 % "
            f"divided by the {count_text(found['looks'], 'look')} that the search may take. So with 95 % confidence no "
            "model that passes loses more than its limit, although the one named is chosen by the same items."
        )
        said.append(
            "That no narrower one passes holds where the loss rises as the width falls; the search asks a few widths."
        )
    if found["floors"]:
        named = ", ".join(f"{task} ({percent(value)})" for task, value in found["floors"].items())
        said.append(f"Not limited, as the dense model cannot do them: {named}.")
    return said


def joint_sentences(found: Mapping[str, Any]) -> list[str]:
    """What the arms of a joint search were planned by."""
    joint, (low, high, count) = found["joint"], found["widths"]
    bare = ", lose its attention" if joint.get("attention_goes") else ""
    widths = f"{count_text(count, 'FFN width')} from {low} to {high}"
    said = [
        f"A layer could be removed{bare} or have one of {widths}. Each arm has the least KL "
        f"divergence from the dense model that was found, on {joint['tokens']:,} tokens of texts that nothing was "
        "scored on; all are planned for the same goal."
    ]
    if joint["device"]:
        parts = ", ".join(f"{name} {percent(share)}" for name, share in joint["time_shares"].items())
        said.append(f"Where the dense model's time per token goes, by the costs on {joint['device']}: {parts}.")
    if joint["cost_error"] is not None:
        error = percent(joint["cost_error"])
        said.append(f"The predicted time of a structure that the costs were not fitted to is {error} off.")
    if joint["unreachable"]:
        said.append(f"Cannot meet the goal by the costs: {', '.join(joint['unreachable'])}.")
    return said


def joint_table(run: Mapping[str, Any]) -> Table:
    """A row per arm: what stays, how far it is from the dense model, the predicted speed, and what it keeps."""
    found = run["goal"]
    chosen, target = chosen_candidate(found), run["task"]
    found_on = {v["name"]: v["eval"][target]["value"] for v in run["variants"] if target in (v["eval"] or {})}
    head = (
        "arm",
        "layers",
        "with attention",
        "mean FFN width",
        "vocabulary",
        "KL to dense",
        "predicted speed",
        target,
        "keeps",
        "misses",
    )
    rows = [
        (
            f"{c['variant']} ({'recommended' if found['found'] else 'nearest'})" if c is chosen else c["variant"],
            str(c["layers"]),
            str(c.get("attention") or c["layers"]),
            str(c["intermediate_size"]),
            f"{c['vocabulary']:,}" if c.get("vocabulary") else "whole",
            f"{c['nats']:.3g}",
            f"{c['predicted_speedup']:.3f}" if c["predicted_speedup"] else "",
            f"{found_on[c['variant']]:.4g}" if c["variant"] in found_on else "",
            "; ".join(condition_text(x) for x in c["conditions"] if x["met"]) or "nothing",
            "; ".join(condition_text(x) for x in c["conditions"] if not x["met"]),
        )
        for c in found["candidates"]
    ]
    marked = next(i for i, c in enumerate(found["candidates"]) if c is chosen)
    return Table("Arms planned for the same goal", head, tuple(rows), marked=marked)


def goal_table(run: Mapping[str, Any]) -> Table:
    """A row per candidate, in the order in which they were evaluated."""
    found = run["goal"]
    if found.get("joint"):
        return joint_table(run)
    chosen = chosen_candidate(found)
    mark = "recommended" if found["found"] else "nearest"
    rows = [
        (
            f"{c['variant']} ({mark})" if c is chosen else c["variant"],
            str(c["intermediate_size"]),
            percent(c["ratio_neurons"]),
            "; ".join(condition_text(x) for x in c["conditions"] if x["met"]) or "nothing",
            "; ".join(condition_text(x) for x in c["conditions"] if not x["met"]),
        )
        for c in found["candidates"]
    ]
    marked = next(i for i, c in enumerate(found["candidates"]) if c is chosen)
    head = ("candidate", "FFN width", "removed", "keeps", "misses")
    return Table("Candidates, in the order of the search", head, tuple(rows), marked=marked)


def condition_text(condition: Mapping[str, Any]) -> str:
    """A condition in words: what the candidate has, and the limit."""
    value, limit = condition["value"], condition["limit"]
    if condition["quantity"] == "right":
        return f"{count_text(round(value), 'right answer')} on {condition['task']} ({limit:g} needed)"
    if condition["task"]:
        said = "a loss of at most" if value > 0 else "a gain of at least"
        return f"{said} {100 * abs(value):.2f} points on {condition['task']} (limit {100 * limit:g})"
    if condition["quantity"] == "params":
        return f"{short_count(round(value))} parameters (limit {short_count(round(limit))})"
    if condition["quantity"] == "fits":
        return f"room for {round(value):,} tokens of KV cache ({round(limit):,} needed)"
    return f"{_rounded_down(value):.3f} times the speed of dense ({limit:g} needed)"


def _rounded_down(value: float) -> float:
    """To thousandths: what misses a limit is not shown as the limit."""
    return math.floor(round(1000 * value, 6)) / 1000


def _goal(found: Mapping[str, Any]) -> Goal:
    return Goal(**{**found["goal"], "concurrency": tuple(found["goal"]["concurrency"])})

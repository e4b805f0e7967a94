"""A model card for the Hub: what was measured on this checkpoint and on the model it was made from, with
intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.core import model_card as core
from harness.core.labels import width_text
from harness.core.model_card import QUALITY, ModelCard, inherited, is_plain
from harness.core.text import markdown
from reports.figures import interval, measured, mebibytes, percent, public_command, public_path, removed_text, unit
from reports.parts import Table
from reports.templating import template
from reports.verdict import choice, verdict


def render(run: Mapping[str, Any], variant: str | None = None, own: ModelCard | None = None) -> str:
    """The card of one variant, with what was measured.

    Args:
        run: run.json.
        variant: its name; None for the one of the verdict.
        own: the checkpoint's own card, whose licence and text on how it was made are taken over.
    """
    chosen, own = subject(run, variant), own or ModelCard()
    body = template("card.md.j2").render(
        run={**run, "model": public_path(str(run["model"])), "command": public_command(run["command"])},
        chosen=chosen,
        device=run["hardware"].get("device", "a device that is not recorded"),
        width=width_text(chosen["intermediate_sizes"]),
        removed=removed_text(chosen),
        of_parameters=percent(chosen["ratio_parameters"]),
        weights=mebibytes(chosen["weight_bytes"]),
        table=results_table(run, chosen),
        verdict=verdict(run) if choice(run) and subject(run, None) is chosen else [],
    )
    title = f"{markdown(public_path(str(run['model'])))}, {markdown(chosen['name'])}"
    made = {name: text for name, text in own.sections.items() if name != QUALITY}  # this card has figures
    return core.render(ModelCard(front_matter(run, chosen, own.front), title, {"": body, **made}))


def subject(run: Mapping[str, Any], variant: str | None) -> Mapping[str, Any]:
    by_name = {v["name"]: v for v in run["variants"]}
    found = choice(run)
    recommended = found.variant if found else run["variants"][-1]
    return by_name[variant] if variant else recommended


def results_table(run: Mapping[str, Any], chosen: Mapping[str, Any]) -> Table:
    """Every task's result before and after, with the paired difference where there is one."""
    dense = run["variants"][0]
    differences = {
        c["task"]: c for c in run["comparisons"] if (c["baseline"], c["variant"]) == (dense["name"], chosen["name"])
    }
    rows = []
    for task, e in chosen["eval"].items():
        before, c = dense["eval"].get(task), differences.get(task)
        value, low, high = (measured(e["metric"], e[key], e["value"]) for key in ("value", "ci_low", "ci_high"))
        change = "{}{unit} ({} to {})".format(*interval(c), unit=unit(c["metric"])) if c else ""
        then = measured(before["metric"], before["value"]) if before else ""
        known = "" if e["ci_low"] is None else f"{low} to {high}"
        rows.append((task, e["metric"], str(e["n"]), then, value, known, change, percent(e["failure_rate"])))
    head = ("task", "metric", "n", dense["name"], "this model", "95 % interval", "change", "generation failures")
    return Table("Results", head, tuple(rows))


def front_matter(run: Mapping[str, Any], chosen: Mapping[str, Any], front: Mapping[str, Any]) -> dict[str, Any]:
    """The card's front matter: the original's fields, and the results as a model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            metric_type=e["metric"],
            metric_value=round(e["value"], 6),
            metric_name=e["metric"],
            dataset_args={"n": e["n"]},
        )
        for task, e in chosen["eval"].items()
    ]
    kept: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    kept |= inherited(front, *(["pruned"] if chosen["method"] != "dense" else []))
    if is_plain(base := front.get("base_model")):
        kept["base_model"] = base
    name = Path(str(run["model"])).name
    data = ModelCardData(**kept, model_name=f"{name}, {chosen['name']}", eval_results=results or None)
    found: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return found

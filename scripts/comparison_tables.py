"""Tables that set structures, allocations, other tools, and a model before and after pruning beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from harness.core.labels import STRUCTURE_NOUNS
from harness.core.text import size_text
from scripts.figure_tables import Documents, pick, table

_PEER_ARMS = {  # arm of benchmarks/peers.py -> name in the table
    "best": "`best`",
    "best@0.5": "`best --general-weight 0.5`",
    "best+rec": "`best --reconstruct`",
    "layer": "`--structure layer`",
    "kv_group+refit": "`--structure kv_group`",
    "kv_group": "the same, not re-fitted",
    "optipfair": "optipfair 0.4.2, width by MAW",
    "optipfair-depth": "optipfair 0.4.2, layers of least change",
    "torch-pruning-l2": "Torch-Pruning 1.6.1, L2",
    "torch-pruning-taylor": "Torch-Pruning 1.6.1, Taylor",
}


def peers_tiny_math(documents: Documents) -> str:
    """tiny-math: accuracy on mini_math / mini_facts in %, at equal parameters."""
    return _at_equal_size(documents["peers_tiny_math"], _accuracies)


def peers_smollm2_skills(documents: Documents) -> str:
    """The same of SmolLM2-135M with three skills."""
    return _at_equal_size(documents["peers_smollm2_skills"], _accuracies)


def _accuracies(row: Mapping[str, Any]) -> str:
    return f"{100 * row['mini_math'][0]:.1f} / {100 * row['mini_facts'][0]:.0f}"


def _at_equal_size(document: Mapping[str, Any], cell: Callable[[Mapping[str, Any]], str]) -> str:
    rows = document["rows"]
    dense = pick(rows, arm="dense")
    levels = list(dict.fromkeys(row["level"] for row in rows if row["level"] != "dense"))
    found = {(row["arm"], row["level"]): cell(row) for row in rows}
    arms = [arm for arm in _PEER_ARMS if any((arm, level) in found for level in levels)]
    head = ("arm", *(_level(level, rows, dense["parameters"]) for level in levels))
    body = [(_PEER_ARMS[arm], *(found.get((arm, level), "") for level in levels)) for arm in arms]
    return table(head, iter([("dense", cell(dense), *[""] * (len(levels) - 1)), *body]))


def _level(level: str, rows: Sequence[Mapping[str, Any]], whole: int) -> str:
    """`without 5 layers, -13 % parameters`: of the arm that the level is named for, or any of the same size."""
    name, _, count = level.rpartition(" ")
    removed = 1 - next(row["parameters"] for row in rows if row["level"] == level) / whole
    plural = "" if count == "1" else "s"
    unit = "KV group of each layer" if name == "kv_group" else f"layer{plural}"
    return f"as without {count} {unit}: {100 * removed:.0f} % of the parameters"


def structure_arms(documents: Documents) -> str:
    """Where each method's choice falls among all choices, for KV groups, blocks and layers of tiny-math."""
    head = ("removed", "choices", "all of them: median (range)", "`best`", "S", "reverse", "`best`, re-fitted")
    return table(head, (tuple(_choices(row)) for row in documents["structure_arms"]["rows"]))


def _choices(row: Mapping[str, Any]) -> Iterator[str]:
    values = sorted(100 * found["mini_math"][0] for found in row["choices"])
    noun = STRUCTURE_NOUNS[row["structure"]]
    plural = "" if row["removed"] == 1 else "s"
    yield f"{row['removed']} {noun}{plural} {row['where']}".strip()
    yield str(len(values))
    yield f"{median(values):.1f} ({values[0]:.1f} to {values[-1]:.1f})"
    for arm in ("best", "S", "reverse"):
        value = 100 * pick(row["choices"], choice=row["arms"][arm])["mini_math"][0]
        yield f"{value:.1f} ({sum(other > value for other in values) + 1})"
    yield f"{100 * row['refitted']['mini_math'][0]:.1f}" if "refitted" in row else ""


def allocation(documents: Documents) -> str:
    """Uniform, global and searched widths of tiny-math: accuracy on mini_math / mini_facts in %."""
    rows = documents["allocation"]["rows"]
    ratios = sorted({row["ratio"] for row in rows if row["arm"] != "dense"})
    head = ("`--allocation`", *(f"{100 * ratio:.0f} % removed" for ratio in ratios))

    def cell(arm: str, ratio: float) -> str:
        row = pick(rows, arm=arm, ratio=ratio)
        return f"{100 * row['mini_math'][0]:.1f} / {100 * row['mini_facts'][0]:.0f}"

    return table(
        head, ((f"`{arm}`", *(cell(arm, ratio) for ratio in ratios)) for arm in ("uniform", "global", "search"))
    )


def joint(documents: Documents) -> str:
    """What each arm of the joint searches on smollm2-skills keeps at its measured speed."""
    head = (
        "run",
        "arm",
        "layers",
        "with attention",
        "mean width",
        "vocabulary",
        "parameters",
        "predicted",
        "measured",
        "mini_math",
    )
    rows = [row for name, shown in _JOINT_RUNS.items() for row in _joint_rows(shown, documents[name])]
    return table((*head, "of dense"), iter(rows))


_JOINT_RUNS = {
    "joint_smollm2_math": "word problems alone, `--vocabulary 2048 --reconstruct --repeats 7`",
    "joint_smollm2_skills_2048": "three skills, `--vocabulary 2048 --reconstruct --repeats 7`",
    "joint_smollm2_skills": "three skills, `--vocabulary 4096 --reconstruct --repeats 5`",
}


def _joint_rows(name: str, run: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    dense = pick(run["variants"], name="dense")
    whole = dense["eval"]["mini_math"]["value"]
    yield name, "dense", *[""] * 4, _millions(dense), "", "", f"{100 * whole:.1f}", ""
    for found in run["goal"]["candidates"]:
        variant = pick(run["variants"], name=found["variant"])
        speed = pick(run["speed_ratios"], variant=found["variant"], quantity="output_tok_s")
        value = variant["eval"]["mini_math"]["value"]
        left = (found["layers"], found["attention"], found["intermediate_size"])
        sizes = (*map(str, left), f"{found['vocabulary']:,}", _millions(variant))
        measured = f"{speed['ratio']:.3f} ({speed['ci_low']:.3f} to {speed['ci_high']:.3f})"
        judged = (f"{found['predicted_speedup']:.3f}", measured, f"{100 * value:.1f}", f"{100 * value / whole:.0f} %")
        yield "", found["arm"], *sizes, *judged
    for arm in run["goal"]["joint"]["unreachable"]:
        yield "", arm, *[""] * 6, "cannot reach it by the costs", "", ""


def _millions(variant: Mapping[str, Any]) -> str:
    return f"{variant['parameters'] / 1e6:.1f} M"


def on_gpu(documents: Documents) -> str:
    """Serving one checkpoint at a time on an H100, and the speed of both in one process, interleaved."""
    parts = documents["h100_80gb_hbm3"]["parts"]
    ratios = pick(parts, name="side-by-side 7b")["figures"]["speed_ratios"]
    served = [part["figures"] for part in parts if part["part"] == "serving" and "figures" in part]
    rows = [_on_gpu(figures) for figures in served]
    beside = [f"{r['ratio']:.2f} ({r['ci_low']:.2f} to {r['ci_high']:.2f})" for r in ratios]
    head = ("FFN width", "weights", "tokens in the KV cache", "output tok/s at 1", "at 32", "at 128", "TPOT at 1")
    return table(head, iter([*rows, ("narrow over dense, in one process", "", "", *beside, "")]))


def _on_gpu(figures: Mapping[str, Any]) -> tuple[str, ...]:
    widths = figures["variant"]["intermediate_sizes"]
    speeds = [f"{figures[f'at {n}']['output_tok_s']:,.0f}" for n in (1, 32, 128)]
    tpot = f"{figures['at 1']['tpot_ms']:.1f} ms"
    return f"{widths[0]}", size_text(figures["weight_bytes"]), f"{figures['kv_tokens']:,}", *speeds, tpot


TABLES: Mapping[str, Callable[[Documents], str]] = {
    made.__name__: made for made in (peers_tiny_math, peers_smollm2_skills, structure_arms, allocation, joint, on_gpu)
}

"""Rows of run.json and of sample files, real and made up."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any


def make_variant(name: str, ratio: float) -> Any:
    """A row of run.json with nothing measured."""
    from harness.core.types.run import Variant

    widths, method = (round(1000 * (1 - ratio)),) * 2, "dense" if ratio == 0 else "selective"
    return Variant(
        name=name,
        method=method,
        metric=None,
        tokens=None,
        alignment=None,
        allocation=None,
        compensated=False,
        seed=None,
        recovered=False,
        ratio_requested=ratio,
        ratio_neurons=ratio,
        ratio_parameters=ratio / 2,
        intermediate_sizes=widths,
        parameters=1000,
        weight_bytes=4000,
        checkpoint=None,
    )


EXAMPLES = Path(__file__).parents[2] / "reports" / "example"
EXAMPLE = Path(__file__).parents[1] / "golden" / "laptop" / "run.json"  # of an older version, whose figures stay


HOSTILE = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 2'>",
    "</script><script>window.pwned = 3</script>",
    "]]>--><svg onload=window.pwned=4>",
    "abc\u202egnp.exe \u2066inner\u2069 \u200f",
    "nul \x00 bell \x07 escape \x1b[31m",
    "&lt;b&gt; &amp; \\u003cscript\\u003e",
    "x" * 1_000_000,
    "javascript:window.pwned=5",
    "\ud83d lone surrogate",
)


def answer(doc_id: int, text: str, correct: bool, kinds: list[str]) -> dict[str, Any]:
    return {
        "doc_id": doc_id,
        "prompt": f"question {doc_id}",
        "text": text,
        "correct": correct,
        "prediction": None,
        "failure": kinds[0] if kinds else None,
        "failures": kinds,
        "finish_reason": "stop",
        "n_tokens": 9,
        "nll": None,
        "units": None,
        "unknown": [],
        "score": None,
    }


def write_samples(folder: Path, run: dict[str, Any], items: int) -> None:
    """Of every variant: answers that loop more the more was removed; the first of one variant are the hostile parts."""
    chance = random.Random(0)
    for v in run["variants"]:
        for e in v["eval"].values():
            rows = []
            for i in range(items):
                loops = chance.random() < v["ratio_neurons"]
                text = f"First {i}+1={i + 1}. " + ("again and again, " * 8 if loops else "") + f"#### {i + 1}"
                rows.append(
                    answer(
                        i, text.removesuffix(f"#### {i + 1}") if loops else text, not loops, ["loop"] if loops else []
                    )
                )
            if v["name"] == "selective-S-0.3":
                rows[: len(HOSTILE)] = [answer(i, text, False, ["gibberish"]) for i, text in enumerate(HOSTILE)]
            e["wrong_by_kind"] = {
                kind: sum(kind in row["failures"] for row in rows) / items for kind in ("loop", "gibberish")
            }
            e["value"] = sum(row["correct"] for row in rows) / items
            path = folder / e["samples"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


EVAL = {
    "n": 100,
    "metric": "exact_match",
    "value": 0.9,
    "ci_low": 0.8256,
    "ci_high": 0.9448,
    "failures": {"truncated": None, "wrong": 0.1},
    "failure_rate": None,
    "tokens_per_answer": None,
    "seconds": 1.0,
    "samples": "s",
}


VARIANT = {
    "name": "dense",
    "method": "dense",
    "metric": None,
    "tokens": None,
    "alignment": None,
    "allocation": None,
    "compensated": False,
    "seed": None,
    "recovered": False,
    "ratio_requested": 0.0,
    "ratio_neurons": 0.0,
    "ratio_parameters": 0.0,
    "intermediate_sizes": [96, 96],
    "parameters": 1000,
    "weight_bytes": 2000,
    "checkpoint": None,
    "eval": {"mini_math": EVAL},
    "serving": None,
}


RUN: dict[str, Any] = {
    "schema_version": 1,
    "model": "m",
    "task": "mini_math",
    "created": "now",
    "versions": {"torch": "2"},
    "hardware": {"device": "cpu"},
    "command": "harness run",
    "seeds": [],
    "calibration": {},
    "variants": [VARIANT],
    "comparisons": [],
}

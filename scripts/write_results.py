"""The README's table of results, from the examples' run.json: `python -m scripts.write_results`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reports.figures import points
from scripts.make_figures import ARMS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "README.md"
EXAMPLES = {"laptop": "tiny-math", "smollm2-math": "SmolLM2-135M"}
RATIOS = (0.1, 0.2, 0.3, 0.5)
_CAN_DO = 0.1  # off-target tasks that the dense model solves less often say nothing
_BLOCK = re.compile(r"(<!-- results: .*? -->\n).*?(<!-- results end -->)", re.DOTALL)
_HEAD = (
    "| model | removed | best | change | S | random | reverse | off target, "
    "`best` |\n|---|---|---|---|---|---|---|---|\n"
)


def text() -> str:
    """The README with today's table."""
    table = _HEAD + "".join(f"| {' | '.join(row)} |\n" for example in EXAMPLES for row in rows(example))
    return _BLOCK.sub(lambda found: f"{found[1]}\n{table}\n{found[2]}", PAGE.read_text(encoding="utf-8"))


def rows(example: str) -> Iterator[tuple[str, ...]]:
    run = json.loads((ROOT / "reports" / "example" / example / "run.json").read_text(encoding="utf-8"))
    points_at = {(p["arm"], p["ratio_requested"], p["task"]): p for p in run["sweep"]["points"]}
    dense = run["variants"][0]["eval"]
    target = dense[run["task"]]
    name = f"**{EXAMPLES[example]}**, dense {100 * target['value']:.1f}, n = {target['n']}"
    for ratio in RATIOS:
        found = {shown: points_at[arm, ratio, run["task"]] for arm, (shown, _) in ARMS.items()}
        value = {shown: f"{100 * point['value']:.1f}" for shown, point in found.items()}
        best = found["best"]
        change = f"{points(best['difference'])} ({points(best['difference_low'])} to {points(best['difference_high'])})"
        elsewhere = _off_target(points_at, dense, run["task"], ratio)
        yield (
            name,
            f"{100 * ratio:.0f} %",
            value["best"],
            change,
            value["S"],
            value["random"],
            value["reverse"],
            elsewhere,
        )
        name = ""


def _off_target(found: Mapping[Any, Any], dense: Mapping[str, Any], target: str, ratio: float) -> str:
    tasks = [task for task, e in dense.items() if task != target and e["ci_low"] >= _CAN_DO]
    changes = (f"{task} {points(found['selective-best', ratio, task]['difference'])}" for task in tasks)
    return ", ".join(changes) or "cannot say"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

"""What fine-tuning brings back on the embedded model: arms x ratios x seeds, beside the dense model fine-tuned the same
way.

python benchmarks/recovered.py [--out docs/recovery.json] [--work runs/recovery] [--steps 300]

A seed decides random pruning, the order of the training data and the data itself. Intervals are over seeds and items.
Every run is an ordinary `harness recover`, and resumes where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.mask_statistics import mean_over_masks
from harness.evaluation.paired import read_correct

RATIOS, SEEDS, ARMS = (0.3, 0.5), (0, 1, 2), ("selective", "random", "reverse", "dense")
TASKS = ("mini_math", "mini_facts", "mini_code")


def recover(folder: Path, ratio: float, seed: int, steps: int, threads: int) -> dict[str, Any]:
    settings = [
        "--metric",
        "smd",
        "--align",
        "1",
        "--ratio",
        str(ratio),
        "--seed",
        str(seed),
        "--steps",
        str(steps),
        "--curve",
        "2",
    ]
    command = [
        "recover",
        "tiny-math",
        "--arms",
        ",".join(ARMS),
        *settings,
        "--threads",
        str(threads),
        "--out",
        str(folder),
    ]
    subprocess.run([sys.executable, "-m", "harness", *command], check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return found


def rows(work: Path, runs: dict[tuple[float, int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Per ratio, arm and task: accuracies before and after (means over seeds), and the paired differences."""
    for ratio in RATIOS:
        names = {
            seed: {v["method"]: v["name"] for v in runs[ratio, seed]["variants"] if not v["recovered"]}
            for seed in SEEDS
        }
        for arm in ARMS:
            for task in TASKS:
                outcome = {
                    what: np.array([answers(work / f"{ratio}-{seed}", name(names[seed], arm), task) for seed in SEEDS])
                    for what, name in NAMES.items()
                }
                yield {"ratio": ratio, "arm": arm, "task": task, **summary(outcome)}


NAMES: Mapping[str, Callable[[Mapping[str, str], str], str]] = {
    "before": lambda names, arm: names[arm],
    "after": lambda names, arm: f"{names[arm]}-recovered",
    "control": lambda names, _arm: f"{names['dense']}-recovered",
}


def answers(folder: Path, variant: str, task: str) -> list[float]:
    found = read_correct(folder / "samples" / variant / f"{task}.jsonl")
    return [float(found[i]) for i in sorted(found)]


def summary(outcome: dict[str, Any]) -> dict[str, Any]:
    """Means in percent; differences in points with 95 % intervals over seeds and items."""
    before, after, control = (outcome[key] for key in ("before", "after", "control"))
    gap = float((control - before).mean())
    found: dict[str, Any] = {key: round(100 * float(value.mean()), 2) for key, value in outcome.items()}
    found["after_by_seed"] = [round(100 * float(value.mean()), 2) for value in outcome["after"]]
    found["share"] = round(float((after - before).mean()) / gap, 3) if gap > 0 else None
    for name, others in {
        "gained": before,
        "margin_over_half": (before + control) / 2,
        "against_control": control,
    }.items():
        found[name] = [round(100 * value, 2) for value in mean_over_masks(after - others)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("docs/recovery.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/recovery"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    cells = [(ratio, seed) for ratio in RATIOS for seed in SEEDS]
    runs = {cell: recover(given.work / f"{cell[0]}-{cell[1]}", *cell, given.steps, given.threads) for cell in cells}
    table = list(rows(given.work, runs))
    seconds = [v["training"]["seconds"] for run in runs.values() for v in run["variants"] if v["training"]]
    versions = runs[RATIOS[0], SEEDS[0]]["versions"]
    result = {
        "steps": given.steps,
        "seconds": [round(min(seconds), 1), round(max(seconds), 1)],
        "versions": versions,
        "rows": table,
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    for row in table:
        print(
            {
                key: row[key]
                for key in ("ratio", "arm", "task", "before", "after", "control", "share", "margin_over_half")
            }
        )


if __name__ == "__main__":
    main()

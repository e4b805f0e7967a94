"""Makes harness/evaluation/kl_grid.json: distance to the dense model and accuracy of the variants of finished sweeps.

    python -m benchmarks.kl_grid RUN...

The file holds the commands of these sweeps. The last lines say how many realised accuracies lie in the 90 % intervals
of a fit that did not see their way of pruning, or their task.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.core.files import write_json
from harness.core.run_file import read_run
from harness.core.types.evaluation import KLToDense
from harness.evaluation.forecast import GRID, GridCell, fit, forecast, nats_per_answer, read_grid
from reports.figures import public_command


def cells_of(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of every variant but dense that was evaluated on the target with its distance."""
    dense, task = run["variants"][0]["eval"][run["task"]], run["task"]
    for v in run["variants"][1:]:
        found = v["eval"].get(task)
        if found and found["kl_to_dense"]:
            distance = KLToDense(**found["kl_to_dense"])
            yield {
                "variant": v["name"],
                "task": f"{run['model']} {task}",
                "arm": v["name"].rpartition(f"-{v['ratio_requested']:g}")[0] or v["name"],
                "ratio": round(v["ratio_neurons"], 4),
                "kl": round(nats_per_answer(distance, dense["tokens_per_answer"]), 5),
                "agreement": round(distance.agreement, 4),
                "dense": dense["value"],
                "right": round(found["value"] * found["n"]),
                "n": found["n"],
            }


def held_out(cells: Sequence[GridCell], by: str) -> list[tuple[bool, bool]]:
    """Of every cell, by a fit without its `by`, arm or task: (inside its interval, extrapolated)."""
    seen = []
    for group in sorted({getattr(cell, by) for cell in cells}):
        found = fit([cell for cell in cells if getattr(cell, by) != group])
        for cell in (cell for cell in cells if getattr(cell, by) == group):
            expected = forecast(found, cell.kl, cell.dense, cell.n)
            seen.append((expected.low <= cell.right / cell.n <= expected.high, expected.extrapolated))
    return seen


def main(folders: Sequence[str]) -> None:
    runs = [read_run(Path(folder)) for folder in folders]
    rows = [row for run in runs for row in cells_of(run)]
    write_json(GRID, {"commands": [public_command(run["command"]) for run in runs], "cells": rows})
    cells = read_grid()
    for by in ("arm", "task"):
        for what in (False, True):
            found = [inside for inside, outside in held_out(cells, by) if outside is what]
            print(f"leaving out one {by}{', extrapolated' * what}: {sum(found)} of {len(found)} inside")
    print(fit(cells))


if __name__ == "__main__":
    main(sys.argv[1:])

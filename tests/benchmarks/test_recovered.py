"""What benchmarks/recovered.py writes is what the table of docs/recovery.md reads."""

from __future__ import annotations

import numpy as np
from scipy import stats

from benchmarks.recovered import ARMS, RATIOS, TASKS, summary
from scripts.figure_tables import recovery


def test_its_rows_make_the_table_of_the_page() -> None:
    """Of 100 items three seeds get 20 right before, 80, 90 and 100 after, and 100 with dense fine-tuned."""
    before, control = np.repeat([[1.0] * 20 + [0.0] * 80], 3, axis=0), np.ones((3, 100))
    after = np.array([[1.0] * right + [0.0] * (100 - right) for right in (80, 90, 100)])
    found = summary({"before": before, "after": after, "control": control})
    value, low, high = found["margin_over_half"]
    over_seeds = 100 * stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert value == 30.0 and low < 30 - over_seeds < 30 + over_seeds < high
    rows = [{"ratio": r, "arm": arm, "task": task, **found} for r in RATIOS for arm in ARMS for task in TASKS]
    table = recovery({"recovery": {"rows": rows}})
    assert table.count(f"| 20.0 -> 90.0 | 88 % | +30.0 [{low:.1f}, {high:.1f}] |") == 6, "three arms at two ratios"

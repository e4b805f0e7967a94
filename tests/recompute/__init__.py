"""Recomputes the intervals of the run.json of a sweep or a dissociation from the right and wrong answers in it.

    python -m tests.recompute reports/example/laptop/run.json

Nothing of the product is imported: the formulas are written out a second time. Left out is what rests on sample files
(failures, likelihoods, mean scores, distances to dense), and what follows from the figures: verdicts, the items that
would decide, the details of claims.
"""

from __future__ import annotations

import math
from typing import Any

from tests.recompute.dissociation import dissociation_checks
from tests.recompute.sweep import Check, checks


def mismatches(run: dict[str, Any]) -> tuple[int, list[Check]]:
    """How many figures were checked, and those that differ by more than 1e-5 of their size."""
    found = list(dissociation_checks(run) if run.get("dissociation") else checks(run))
    return len(found), [c for c in found if not same(c[1], c[2])]


def same(stored: float | None, again: float | None) -> bool:
    if stored is None or again is None:
        return stored is None and again is None
    return math.isclose(stored, again, rel_tol=1e-5, abs_tol=1e-9)

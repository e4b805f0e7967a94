"""What the claims of a sweep are judged on, and the parts that their rules share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scipy import stats

from harness.core.statistics import Difference, is_able, items_needed
from harness.core.types.serving import SpeedRatio
from harness.core.types.sweep import Claim, Verdict
from harness.core.types.training import Recovery
from harness.sweeps.curves import GridPoint, Outcomes
from harness.sweeps.grid import near
from reports.figures import points

PAPER, BEST, RANDOM, REVERSE, MATCHED = "selective-S", "selective-best", "random", "reverse-S", "matched"
LEVEL = 0.05
REASONS = ("cannot say: ", "missing: ")  # how a detail begins that says why there is no verdict


@dataclass(frozen=True)
class Evidence:
    """What the claims are judged on.

    Attributes:
        sizes: Variant -> ((parameters, bytes) by formula, (parameters, bytes) as written), for written checkpoints.
        chance: Accuracy by chance; collapse_share and margin are settings of the sweep too.
        roles: PAPER, BEST ... -> the arm in that role, if it has another name.
        distractors: Off-target tasks of which prompts were among the distractors.
        items: How many the target has; None where that is unknown.
    """

    outcomes: Outcomes
    speed_ratios: Sequence[SpeedRatio]
    recoveries: Sequence[Recovery]
    sizes: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
    chance: float
    collapse_share: float
    margin: float
    roles: Mapping[str, str] = field(default_factory=dict)
    distractors: frozenset[str] = frozenset()
    items: int | None = None

    def arm(self, role: str) -> str:
        return self.roles.get(role, role)

    @property
    def able(self) -> bool:
        """Whether the dense model can do the target; what it cannot do it cannot lose."""
        right = self.outcomes.before(self.outcomes.target)
        return is_able(sum(right), len(right))

    def place(self, role: str, ratio: float) -> GridPoint | None:
        """The point of an arm whose real share of removed neurons is meant by `ratio`."""
        places = self.outcomes.along(self.arm(role))
        found = near(ratio, [place.ratio_neurons for place in places])
        return next((place for place in places if place.ratio_neurons == found), None)


def collapse_below(e: Evidence) -> float:
    """The accuracy below which the target counts as collapsed."""
    return max(e.chance, e.collapse_share * float(e.outcomes.of(e.outcomes.dense, e.outcomes.target).mean()))


def blank(claim: str, rule: str, figure: str, unit: Literal["points", "share", "factor", "ratio"]) -> Claim:
    """A claim that nothing was measured for."""
    return Claim(
        claim=claim,
        rule=rule,
        figure=figure,
        unit=unit,
        value=None,
        ci_low=None,
        ci_high=None,
        verdict="cannot say",
        n=None,
        n_needed=None,
    )


def missing(base: Claim, what: str) -> Claim:
    return replace(base, details=(f"missing: {what}",))


def unable(base: Claim) -> Claim:
    """A claim about a target that the dense model cannot do: it has nothing to lose there."""
    return missing(base, "a target that the dense model can do")


def judged(base: Claim, figure: Difference, aim: float, n: int, *details: str, verdict: Verdict | None = None) -> Claim:
    """The claim with its figure, which must exceed `aim`."""
    value, low, high = figure
    found = verdict or ("supported" if low > aim else "not supported" if high <= aim else "cannot say")
    needed = needed_items(figure, aim, n) if found == "cannot say" else None
    return replace(base, value=value, ci_low=low, ci_high=high, verdict=found, n=n, n_needed=needed, details=details)


def needed_items(figure: Difference, aim: float, n: int) -> int | None:
    """Items at which this distance from `aim` would be found with 80 % power, given the width of the present
    interval.
    """
    value, low, high = figure
    if math.isclose(value, aim) or high <= low or n < 2:
        return None
    variance = n * ((high - low) / 2 / stats.t.ppf(1 - LEVEL / 2, n - 1)) ** 2
    return max(n + 1, items_needed(abs(value - aim), variance))


def points_text(figure: Difference) -> str:
    value, low, high = map(points, figure)
    return f"{value} points ({low} to {high})"

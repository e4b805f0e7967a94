"""Whether pruning makes the model smaller as computed, and faster beyond what the dense model shows against itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from harness.core.statistics import Difference
from harness.core.types.serving import SpeedRatio
from harness.core.types.sweep import Claim, Verdict
from harness.sweeps.evidence import PAPER, Evidence, blank, judged, missing
from harness.sweeps.speed import AGAIN
from reports.figures import percent

_AT = 0.3
_FEWEST = 4  # widths for a trend, the dense model among them


def smaller_and_faster(e: Evidence) -> Claim:
    """Claim 4, at the largest concurrency."""
    base = blank(
        "4. Parameters and memory fall as computed, and throughput rises with the ratio",
        "the checkpoint at 30 % has the parameters and bytes of the formula; tokens per second over dense, in pairs "
        "of passes, lie above the whole interval of the dense model against itself; and over all ratios the slope of "
        "their logarithm is above 0",
        "throughput",
        "factor",
    )
    arms = [e.place(arm, _AT) for arm in (PAPER, *e.outcomes.arms)]
    names = list(dict.fromkeys(v.name for place in arms if place for v in place.variants))
    timed = _at_most_concurrency(e.speed_ratios)
    chosen = next((r for name in names for r in timed if r.variant == name), None)
    written = next((name for name in names if name in e.sizes), None)
    if chosen is None or written is None:
        return missing(base, "an arm at 30 % that was written and timed")
    predicted, found = e.sizes[written]
    line = (
        f"{written}: {found[0]:,} parameters and {found[1]:,} bytes written, "
        f"{predicted[0]:,} and {predicted[1]:,} predicted"
    )
    itself, trend = next((r for r in timed if r.variant == AGAIN), None), _trend(e, timed)
    verdict: Verdict = "not supported" if predicted != found else _verdict(chosen, itself, trend)
    details = (*_open_points(chosen, itself, trend), line, *_figures(chosen, itself, trend))
    if chosen.ci_low is None or chosen.ci_high is None:
        return replace(base, value=chosen.ratio, n=chosen.pairs, verdict=verdict, details=details)
    figure = chosen.ratio, chosen.ci_low, chosen.ci_high
    return replace(judged(base, figure, 1.0, chosen.pairs, *details, verdict=verdict), n_needed=None)


def _at_most_concurrency(ratios: Sequence[SpeedRatio]) -> list[SpeedRatio]:
    tokens = [r for r in ratios if r.quantity == "output_tok_s"]
    most = max((r.concurrency for r in tokens), default=0)
    return [r for r in tokens if r.concurrency == most]


def _trend(e: Evidence, timed: Sequence[SpeedRatio]) -> Difference | None:
    """Slope of log(tokens per second over dense) against the ratio of neurons, over the timed arms and dense against
    itself at 0: least squares with Student's t, an arm as a unit, since its passes were taken together.
    """
    ratio_of = {v.name: p.ratio_neurons for p in e.outcomes.places for v in p.variants} | {AGAIN: 0.0}
    rows = {ratio_of[r.variant]: float(np.log(r.ratio)) for r in timed if r.variant in ratio_of}
    if len(rows) < _FEWEST:
        return None
    fit = stats.linregress(list(rows), list(rows.values()))
    half = float(stats.t.ppf(0.975, len(rows) - 2) * fit.stderr)
    if half == 0:
        return None  # figures that lie in a line to the last digit say nothing of their spread
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half


def _verdict(chosen: SpeedRatio, itself: SpeedRatio | None, trend: Difference | None) -> Verdict:
    if trend and trend[2] < 0:
        return "not supported"
    if itself is None or None in (chosen.ci_low, chosen.ci_high, itself.ci_low, itself.ci_high):
        return "cannot say"
    if chosen.ci_high < min(1.0, itself.ci_low):  # type: ignore[operator, type-var]
        return "not supported"
    faster = chosen.ci_low > max(1.0, itself.ci_high)  # type: ignore[operator, type-var]
    return "supported" if faster and trend and trend[1] > 0 else "cannot say"


def _open_points(chosen: SpeedRatio, itself: SpeedRatio | None, trend: Difference | None) -> list[str]:
    """What is missing, or not shown, for "supported"."""
    most = None if itself is None else itself.ci_high
    within = chosen.ci_low is not None and most is not None and chosen.ci_low <= max(1.0, most)
    return [
        *(["cannot say: within what the dense model shows against itself"] if within else []),
        *(["cannot say: not shown to rise with the ratio"] if trend and trend[1] <= 0 else []),
        *(["missing: more than one pair of passes, for an interval"] if chosen.ci_low is None else []),
        *(["missing: the dense model timed against itself"] if itself is None else []),
        *(["missing: three widths or more that were timed, for a trend"] if trend is None else []),
    ]


def _figures(chosen: SpeedRatio, itself: SpeedRatio | None, trend: Difference | None) -> list[str]:
    lines = [f"{chosen.variant} at {chosen.concurrency} concurrent requests: {_factor(chosen)}"]
    if itself:
        lines.append(f"dense against itself: {_factor(itself)}")
    if trend:
        value, low, high = (percent(float(np.exp(0.1 * slope)) - 1) for slope in trend)
        lines.append(f"for every 10 % removed {value} faster ({low} to {high})")
    return lines


def _factor(r: SpeedRatio) -> str:
    return f"{r.ratio:.3f}x" + ("" if r.ci_low is None else f" ({r.ci_low:.3f} to {r.ci_high:.3f})")

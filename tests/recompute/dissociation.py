"""The intervals of a dissociation's run.json, from the right and wrong answers in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tests.recompute.intervals import Triple, over_masks, pair, score
from tests.recompute.sweep import Check, three


def dissociation_checks(run: dict[str, Any]) -> Iterator[Check]:
    """What is lost without whose neurons, and the shares of the explanations."""
    found = run["dissociation"]
    lost = Losses(found)
    for pair_of in found["double"]:
        first, second, out = pair_of["first"], pair_of["second"], pair_of["held_out"]
        sets = [lost.sets(a, b if out else None) for a, b in ((first, second), (second, first))]
        tasks = ((first, second), (second, first))
        for name, order in zip(("own", "other"), tasks, strict=True):
            for stored, chosen, task in zip(pair_of[name], sets, order, strict=True):
                yield from three(f"{first} and {second}, {name}", stored, lost.mean(chosen, task))
    for e in found["explanations"]:
        if e["value"] is not None:
            again = lost.explained(e["target"], e["explanation"])
            yield from three(f"{e['target']}: {e['explanation']}", (e["value"], e["ci_low"], e["ci_high"]), again)


class Losses:
    """Losses by the answers of a dissociation."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found, self.tasks = found, found["tasks"]
        self.dense = {task: bits(text) for task, text in found["dense"].items()}
        self.able = [t for t in self.tasks if score(self.dense[t].sum(), len(self.dense[t]))[0] >= 0.1]

    def sets(self, target: str, held_out: str | None) -> list[dict[str, Any]]:
        kind = "held out" if held_out else "reverse"
        return [
            i
            for i in self.found["interventions"]
            if (i["kind"], i["target"], i["held_out"]) == (kind, target, held_out)
        ]

    def mean(self, chosen: Sequence[dict[str, Any]], task: str) -> Triple:
        return average([flipped(pair(self.dense[task], bits(one["outcomes"][task]))) for one in chosen])

    def relative(self, figure: Triple, task: str) -> Triple:
        return tuple(end / self.dense[task].mean() for end in figure)  # type: ignore[return-value]

    def explained(self, target: str, name: str) -> Triple | None:
        whole = self.mean(self.sets(target, None), target)
        kinds = {"a few super neurons": "without super", "surface form": "surface", "zeroing artefact": "mean"}
        if name in kinds:
            value, low, high = ratio_of(self.over(target, kinds[name]), whole)
            return 1 - value, 1 - high, 1 - low
        if name == "general importance":
            ways = [f"{what} {how}" for what in ("contribution", "activation") for how in ("by layer", "in total")]
            return max(ratio_of(self.over(target, way, 1 - 0.05 / 4), whole) for way in ways)
        others = [task for task in self.able if task != target]
        own = self.relative(whole, target)
        if name == "task-specific set":
            return max(ratio_of(self.relative(self.mean(self.sets(target, t), t), t), own) for t in others)
        return max(ratio_of(self.relative(self.further(target, t, 1 - 0.05 / len(others)), t), own) for t in others)

    def over(self, target: str, kind: str, confidence: float = 0.95) -> Triple:
        chosen = [i for i in self.found["interventions"] if (i["kind"], i["target"]) == (kind, target)]
        rows = np.array([bits(one["outcomes"][target]) for one in chosen])
        return flipped(over_masks(self.dense[target], rows, confidence))

    def further(self, target: str, task: str, confidence: float) -> Triple:
        both = zip(self.sets(target, None), self.sets(target, task), strict=True)
        return average([flipped(pair(*(bits(one["outcomes"][task]) for one in two), confidence)) for two in both])


def bits(text: str) -> np.ndarray:
    return np.array([float(character) for character in text])


def flipped(figure: Triple) -> Triple:
    return -figure[0], -figure[2], -figure[1]


def average(figures: Sequence[Triple]) -> Triple:
    value, low, high = (float(np.mean(column)) for column in zip(*figures, strict=True))
    return value, low, high


def ratio_of(part: Triple, whole: Triple) -> Triple:
    """MOVER-R by the roots of its quadratic: the limits R solve (x - R y)^2 = (x - x_end)^2 + R^2 (y - y_end)^2."""
    (x, x_low, x_high), (y, y_low, y_high) = part, whole
    low = min(roots(y**2 - (y - y_high) ** 2, -2 * x * y, x**2 - (x - x_low) ** 2))
    high = max(roots(y**2 - (y - y_low) ** 2, -2 * x * y, x**2 - (x - x_high) ** 2))
    return x / y, low, high


def roots(a: float, b: float, c: float) -> list[float]:
    return [float(root.real) for root in np.roots([a, b, c])]

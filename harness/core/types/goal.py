"""A goal of `harness run` in place of a ratio, and what a search for a model that meets it found, as in run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Quantity = Literal["max-loss", "off-target-loss", "params", "fits", "speedup", "right"]


@dataclass(frozen=True)
class Goal:
    """What a model has to meet; None: anything.

    Attributes:
        max_loss: Most accuracy that may be lost on the target, a share of all items, by an upper bound of the loss.
        off_target_loss: The same on every other task with right answers that the dense model can do.
        params: Most parameters.
        fits: A device or a memory size, such as 24GiB, on which weights and `requests` requests of `context` tokens
            have room.
        speedup: Least output tokens per second over the dense model's, at every `concurrency`.
        device: The device by whose roofline the speed-up is computed; None: it is measured on this machine.
        context: Tokens of a request, for `fits` and `device`.
        requests: Requests at a time, for `fits`.
        concurrency: Requests at a time, for `speedup`.
    """

    max_loss: float | None = None
    off_target_loss: float | None = None
    params: int | None = None
    fits: str | None = None
    speedup: float | None = None
    device: str | None = None
    context: int = 2048
    requests: int = 1
    concurrency: tuple[int, ...] = (1,)

    @property
    def limits_loss(self) -> bool:
        return self.max_loss is not None or self.off_target_loss is not None

    @property
    def label(self) -> str:
        """The conditions in a file name, such as max-loss-1-fits-24GiB."""
        return "-".join(text.removeprefix("--").replace(" ", "-") for text in self.options)

    @property
    def options(self) -> tuple[str, ...]:
        """The conditions as they are typed, without what belongs to them."""
        losses = {"max-loss": self.max_loss, "off-target-loss": self.off_target_loss}
        shown: dict[str, str | None] = {k: None if v is None else f"{100 * v:g}" for k, v in losses.items()}
        shown |= {"params": None if self.params is None else _short(self.params), "fits": self.fits}
        shown |= {"speedup": None if self.speedup is None else f"{self.speedup:g}"}
        return tuple(f"--{name} {value}" for name, value in shown.items() if value is not None)

    @property
    def is_timed(self) -> bool:
        """Whether a candidate has to be timed here before it is known to meet the goal."""
        return self.speedup is not None and self.device is None


@dataclass(frozen=True)
class Condition:
    """One condition of a goal and what a candidate has.

    Attributes:
        limit: A share of items, parameters, tokens of KV cache, or a factor.
        value: Of a loss its upper bound.
        met: Whether the candidate keeps it.
        miss: How far it is from that, as a share of the limit; 0 where it is met.
        task: Of a loss.
    """

    quantity: Quantity
    limit: float
    value: float
    met: bool
    miss: float
    task: str | None = None


@dataclass(frozen=True)
class Candidate:
    """A variant that the search evaluated.

    Attributes:
        intermediate_size: FFN width; of layers that differ their mean.
        ratio_neurons: Share of the FFN neurons that went, those of removed layers among them.
        conditions: Those that are known of it, of which none may be missed.
        layers: How many stay, where layers may be removed.
        attention: How many of these have their attention.
        predicted_speedup: By the costs, where the goal is a speed-up.
        nats: KL(dense || variant) in nats per token of the held-out texts, where the search measured it, before a
            reconstruction; a smaller vocabulary is not in it.
        vocabulary: Entries that stay, where layers may be removed.
    """

    variant: str
    arm: str
    intermediate_size: int
    ratio_neurons: float
    conditions: tuple[Condition, ...]
    layers: int | None = None
    predicted_speedup: float | None = None
    nats: float | None = None
    vocabulary: int | None = None
    attention: int | None = None

    @property
    def met(self) -> bool:
        return all(condition.met for condition in self.conditions)

    @property
    def miss(self) -> float:
        """Of the condition that is missed by most."""
        return max((condition.miss for condition in self.conditions), default=0.0)


@dataclass(frozen=True)
class JointSearch:
    """How FFN widths, missing attention and removed layers were searched together.

    Attributes:
        device: Where the costs were timed, or by whose roofline they are computed; None where the goal is no speed-up.
        time_shares: Of a round of the dense model by the costs, at the first concurrency: attention, FFN, vocabulary,
            layers (norms and what surrounds the two blocks; with attention where it cannot go), fixed.
        cost_error: Largest relative error of the predicted time of a structure that the costs were not fitted to.
        tokens: On which the damage was measured.
        unreachable: Arms that cannot reach the goal.
        attention_goes: Whether a layer could lose its attention alone.
    """

    device: str | None
    time_shares: Mapping[str, float]
    cost_error: float | None
    tokens: int
    unreachable: tuple[str, ...] = ()
    attention_goes: bool = False


@dataclass(frozen=True)
class GoalOutcome:
    """What a search found.

    Attributes:
        widths: FFN widths whose sizes meet the goal, from the lowest to the highest, and how many.
        looks: How many variants the search may compare with a limit of loss, at most; 0 without such a limit.
        level: One-sided level of each bound of a loss: 5 % divided by `looks`.
        candidates: In the order in which they were evaluated.
        found: The variant that meets the goal; None where none does.
        nearest: The variant that misses it by least; None where one meets it.
        joint: Where layers may be removed too.
        floors: Task -> the dense model's accuracy, of off-target tasks that it cannot do.
    """

    goal: Goal
    widths: tuple[int, int, int]
    looks: int
    level: float
    candidates: tuple[Candidate, ...]
    found: str | None
    nearest: str | None
    floors: Mapping[str, float] = field(default_factory=dict)
    joint: JointSearch | None = None


def _short(parameters: int) -> str:
    """6B, 1.5B, 135M."""
    size, unit = next(((s, u) for s, u in ((10**9, "B"), (10**6, "M"), (10**3, "K")) if parameters >= s), (1, ""))
    return f"{parameters / size:.10g}{unit}"

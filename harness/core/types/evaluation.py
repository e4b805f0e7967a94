"""What an evaluation gives: sample records, results, paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNEXPLAINED = "unexplained"  # in wrong_by_kind: an answer that is not right, with no kind seen


@dataclass(frozen=True)
class SampleRecord:
    """One answered item. `failures` holds every kind seen, `failure` the first by precedence, both without judging
    accuracy.

    `unknown`: kinds that nobody could see, as truncation where no finish_reason came along. doc_id None: not of the
    test split.

    Where a text was scored instead: `correct` None, `nll` its negative log likelihood in nats, `units` its tokens or
    bytes."""

    doc_id: int | None
    prompt: str
    text: str
    correct: bool | None
    prediction: str | None
    failure: str | None
    failures: tuple[str, ...]
    finish_reason: str | None
    n_tokens: int | None
    nll: float | None = None
    units: int | None = None
    unknown: tuple[str, ...] = ()
    score: float | None = None  # how alike the answer is to the dense model's, for the task similarity


@dataclass(frozen=True)
class EvalResult:
    """Accuracy with a 95 % Wilson interval, and how often each failure kind was seen (multi-label; None where unknown).

    metric perplexity or bits_per_byte: lower is better, the interval is over texts, no failure is known.

    `samples`: path relative to the run directory. trap_rate: the paper's own "trap", answers of at least 1024 tokens.
    wrong_by_kind: the first kind by precedence of every answer that is not right; with `value` these shares sum to 1.
    failure_low, failure_high: Wilson's interval of failure_rate.
    """

    n: int
    metric: str
    value: float
    ci_low: float | None  # None: lm-eval gives no standard error for this metric
    ci_high: float | None
    failures: Mapping[str, float | None]
    failure_rate: float | None
    tokens_per_answer: float | None
    seconds: float
    samples: str
    trap_rate: float | None = None
    wrong_by_kind: Mapping[str, float] = field(default_factory=dict)
    failure_low: float | None = None
    failure_high: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Pruned minus dense on the same items of one task, with a 95 % interval and both flip counts.

    `difference`: of the accuracy; for perplexity of the nats per token (its logarithm), for bits_per_byte of the bits.
    Flips and test are None there."""

    variant: str
    baseline: str
    task: str
    n: int
    difference: float
    ci_low: float
    ci_high: float
    lost: int | None  # right before, wrong after
    gained: int | None
    mcnemar_p: float | None
    metric: str


LIKELIHOOD_METRICS = ("perplexity", "bits_per_byte")


SIMILARITY = "similarity"  # a mean of scores, not a share of right answers

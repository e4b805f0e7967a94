"""Sample records summed up: the value of a task's metric with its interval, and the rate of every kind of failure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass

from harness.core.statistics import likelihood_metric, ratio_mean, wilson
from harness.core.types.evaluation import LIKELIHOOD_METRICS, UNEXPLAINED, EvalResult, SampleRecord, is_mean_score
from tasks.failures import NOT_GENERATION_FAILURES, FailureKind

TRAP = 1024  # tokens at which the paper (arXiv 2604.27115) counts an answer as a generation failure


@dataclass(frozen=True)
class FailureRates:
    """How often answers failed, whether right or wrong; each None where it is unknown for an answer.

    Attributes:
        failures: Kind -> share of answers with it.
        failure_rate: Share of answers with any kind that counts as a failure of generation.
        tokens_per_answer: Mean.
        trap_rate: The paper's own "trap": share of answers of at least 1024 tokens.
    """

    failures: Mapping[str, float | None]
    failure_rate: float | None
    tokens_per_answer: float | None
    trap_rate: float | None


def summarise(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    """One task's result.

    Args:
        metric: likelihoods over all texts, similarity and other scores as a mean, any other as the share of right
            answers with Wilson's interval.
        records: One per item.
        seconds: What the evaluation took.
        samples: Path of the records, relative to the run directory.
    """
    if metric in LIKELIHOOD_METRICS:
        return _summarise_likelihood(metric, records, seconds, samples)
    if is_mean_score(metric):
        return _summarise_scores(metric, records, seconds, samples)
    rates = summarise_failures(records)
    n, correct = len(records), sum(bool(record.correct) for record in records)
    low, high = wilson(correct, n)
    rate = rates.failure_rate
    failure_low, failure_high = (None, None) if rate is None else wilson(round(rate * n), n)
    return EvalResult(
        n=n,
        metric=metric,
        value=correct / n,
        ci_low=low,
        ci_high=high,
        seconds=seconds,
        samples=samples,
        wrong_by_kind=_wrong_by_kind(records),
        failure_low=failure_low,
        failure_high=failure_high,
        **asdict(rates),
    )


def _summarise_scores(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    value, low, high = ratio_mean([float(record.score or 0.0) for record in records], [1] * len(records))
    return EvalResult(
        n=len(records),
        metric=metric,
        value=value,
        ci_low=max(0.0, low),  # scores are from 0 to 1
        ci_high=min(1.0, high),
        seconds=seconds,
        samples=samples,
        **asdict(summarise_failures(records)),
    )


def _summarise_likelihood(metric: str, records: Sequence[SampleRecord], seconds: float, samples: str) -> EvalResult:
    """A likelihood metric with texts as clusters of tokens; there are no failures."""
    losses, units = [float(record.nll or 0.0) for record in records], [int(record.units or 0) for record in records]
    value, low, high = likelihood_metric(metric, losses, units)
    return EvalResult(
        n=len(records),
        metric=metric,
        value=value,
        ci_low=low,
        ci_high=high,
        failures={str(kind): None for kind in FailureKind},
        failure_rate=None,
        tokens_per_answer=None,
        seconds=seconds,
        samples=samples,
    )


def _wrong_by_kind(records: Sequence[SampleRecord]) -> dict[str, float]:
    """Kind -> share of all answers that are wrong and show it first; kinds that were not seen are left out."""
    counts = Counter(record.failure or UNEXPLAINED for record in records if not record.correct)
    kinds = (*map(str, FailureKind), UNEXPLAINED)
    return {kind: counts[kind] / len(records) for kind in kinds if counts[kind]}


def summarise_failures(records: Sequence[SampleRecord]) -> FailureRates:
    lengths = [record.n_tokens for record in records if record.n_tokens is not None]
    known = len(lengths) == len(records)
    counted = {str(kind) for kind in FailureKind if kind not in NOT_GENERATION_FAILURES}
    return FailureRates(
        failures={str(kind): _rate(records, {str(kind)}) for kind in FailureKind},
        failure_rate=_rate(records, counted),
        tokens_per_answer=math.fsum(lengths) / len(lengths) if known else None,
        trap_rate=sum(length >= TRAP for length in lengths) / len(lengths) if known else None,
    )


def _rate(records: Sequence[SampleRecord], kinds: Set[str]) -> float | None:
    """The share of records with one of `kinds`; None where one shows none of them and one of them is unknown."""
    seen = [bool(kinds & set(record.failures)) for record in records]
    unclear = (kinds & set(record.unknown) for record, has_one in zip(records, seen, strict=True) if not has_one)
    return None if any(unclear) else sum(seen) / len(seen)

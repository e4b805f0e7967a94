"""Results of an evaluation: sample records, results per task, paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNEXPLAINED = "unexplained"  # in wrong_by_kind: an answer that is not right, with no kind seen


@dataclass(frozen=True)
class SampleRecord:
    """One answered item, or one scored text.

    Attributes:
        doc_id: Index in the test split; None for an item that is not in it.
        failure: The first failure kind by precedence.
        failures: Every failure kind that was detected, whether or not the answer is right.
        unknown: Kinds that could not be detected, such as truncation without a finish_reason.
        nll: Negative log likelihood in nats where a text was scored; `correct` is None then.
        units: Tokens or bytes of a scored text.
        reasoning: What the model wrote before `text`, the answer, with its tags; None where there was nothing.
        score: From 0 to 1 where an answer is neither right nor wrong: for the task similarity, how alike it is to
            the dense model's.
        missing_module: What the program could not import in the sandbox, where that ended it: numpy.
        gold: The right answer as the task gives it; None where there is none, or it is not a text.
    """

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
    reasoning: str | None = None
    score: float | None = None
    missing_module: str | None = None
    gold: str | None = None


@dataclass(frozen=True)
class MetricValue:
    """A figure of lm-eval's, as lm-eval reports it.

    Attributes:
        filter: Name of the filter that read the answers; "none" where the task has none.
        stderr: lm-eval's standard error; None where it gives none.
    """

    metric: str
    filter: str
    value: float
    stderr: float | None


@dataclass(frozen=True)
class GroupResult:
    """A group of lm-eval's tasks, aggregated by lm-eval.

    Attributes:
        tasks: Its tasks, without groups.
        n: Items of all of them.
    """

    tasks: tuple[str, ...]
    n: int
    metrics: tuple[MetricValue, ...]


@dataclass(frozen=True)
class KLToDense:
    """How far a variant is from the dense model on the dense model's own greedy answers; 95 % intervals over items.

    Attributes:
        n: Answers.
        tokens: Of all answers; each is a place where the next token was compared.
        nats_per_token: Mean KL(dense || variant), over the tokens that both models have among their 20 most probable
            (and the answer's own) and one class of all others: a lower bound of that over all tokens.
        agreement: Share of the places where both models' most probable token is the same.
        ci_low, agreement_low, ...: None for a single answer.
    """

    n: int
    tokens: int
    nats_per_token: float
    ci_low: float | None
    ci_high: float | None
    agreement: float
    agreement_low: float | None
    agreement_high: float | None


@dataclass(frozen=True)
class EvalResult:
    """One variant on one task: the metric with a 95 % interval, and the rate of every failure kind.

    Attributes:
        metric: exact_match, pass@1, similarity or a metric of lm-eval. For perplexity and bits_per_byte lower is
            better.
        ci_low, ci_high: Wilson's interval for shares, over texts for likelihood metrics; None where lm-eval gives no
            standard error.
        failures: Failure kind -> rate. An answer can have several kinds. None: unknown.
        failure_rate: Rate of any kind except wrong, runtime_error, timeout and memory, with Wilson's interval
            failure_low, failure_high.
        samples: Path of the sample file, relative to the run directory.
        trap_rate: The paper's "trap": answers of at least 1024 tokens.
        wrong_by_kind: The first failure kind of every answer that is not right; with `value` these shares sum to 1.
        filter: For a task of lm-eval's own, the filter whose reading of the answers `value` and `samples` are.
        metrics: For a task of lm-eval's own, every metric with every filter, as lm-eval reports them.
        kl_to_dense: On the target's prompts; None where it was not measured.
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
    filter: str | None = None
    metrics: tuple[MetricValue, ...] = ()
    kl_to_dense: KLToDense | None = None


@dataclass(frozen=True)
class Comparison:
    """`variant` minus `baseline` on the same items of one task, with a 95 % interval.

    Attributes:
        difference: Of accuracy as a share; for perplexity of nats per token, for bits_per_byte of bits.
        lost: Items that became wrong; `gained`, that became right. None for likelihood metrics.
        mcnemar_p: p-value of McNemar's exact test; None for likelihood metrics.
    """

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


LIKELIHOOD_METRICS = ("perplexity", "bits_per_byte", "word_perplexity", "byte_perplexity")


SIMILARITY = "similarity"  # a mean of scores, not a share of right answers
MEAN = "mean "  # before the name of another such metric, one of lm-eval's: mean f1


def is_mean_score(metric: str) -> bool:
    """Whether a metric is a mean of scores from 0 to 1."""
    return metric == SIMILARITY or metric.startswith(MEAN)


def has_right_answers(metric: str) -> bool:
    """Whether items are right or wrong, so that a loss of right answers can be judged."""
    return metric not in LIKELIHOOD_METRICS and not is_mean_score(metric)

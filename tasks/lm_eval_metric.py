"""The figure that counts of a task of lm-eval: which of its metrics runs can be compared by, and what one gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from harness.core.errors import UsageError, first_line
from harness.core.types.evaluation import LIKELIHOOD_METRICS
from tasks.grading import Document
from tasks.lm_eval_prompts import choices_of, pair

_LIKELIHOOD_AGGREGATIONS = ("perplexity", "weighted_perplexity", "bits_per_byte")
_LONGEST_VALUE = 80  # characters in a message


def chosen_metric(task: Any, name: str, wanted: tuple[str, str | None] | None) -> tuple[str, str]:
    """The metric that counts, and its filter.

    Args:
        task: lm-eval's own.
        name: Of the task.
        wanted: The metric and its filter or None; None: the first of the YAML file.

    Raises:
        UsageError: The task has no such metric or filter, or runs cannot be compared by it.
    """
    aggregations, filters = task.aggregation(), [each.name for each in task._filters]
    metric, reading = wanted or (next(iter(aggregations)), None)
    if metric not in aggregations or reading not in (None, *filters):
        raise UsageError(
            f"--metric-of: {name} has the metrics {', '.join(aggregations)} and the filters {', '.join(filters)}"
        )
    if why := _why_not(task, metric):
        usable = [each for each in aggregations if not _why_not(task, each)]
        others = f"give --metric-of {name}=METRIC, one of {', '.join(usable)}" if usable else "use `harness eval`"
        raise UsageError(f"{name}: {metric} is {why}, so runs cannot be compared by it; {others}")
    return metric, reading or filters[0]


def _why_not(task: Any, metric: str) -> str | None:
    """Why runs cannot be compared by a metric; None where they can."""
    aggregation = getattr(task.aggregation()[metric], "__name__", "")
    if metric in LIKELIHOOD_METRICS:
        return None if aggregation in _LIKELIHOOD_AGGREGATIONS else "no likelihood per item"
    if aggregation != "mean":
        return "not right or wrong per item"
    return "better where it is lower" if task.higher_is_better().get(metric) is False else None


def value_of(task: Any, metric: str, reading: str, doc: Document, text: str) -> tuple[Any, Any]:
    """The metric of one generated answer, and what the filter `reading` found in it."""
    from lm_eval.api.instance import Instance

    instance = Instance(request_type="generate_until", doc=dict(doc), arguments=("", {}), idx=0, resps=[text])
    next(each for each in task._filters if each.name == reading).apply([instance])
    found = instance.filtered_resps[reading]
    return task.process_results(dict(doc), [found]).get(metric), found


def is_right_or_wrong(task: Any, name: str, metric: str, reading: str, doc: Document) -> bool:
    """Whether a metric says only right or wrong, tried on made-up answers.

    Args:
        task: lm-eval's own.
        name: Of the task.
        metric: One of `chosen_metric`; `reading`: its filter.
        doc: An item.

    Raises:
        UsageError: It fails or gives no number from 0 to 1, as it would in an evaluation.
    """
    try:
        values = list(_tried(task, metric, reading, doc))
    except Exception as error:  # every metric has errors of its own
        raise UsageError(f"{name}: {metric} cannot be computed ({first_line(error)})") from error
    for value in values:  # numbers as `harness.evaluation.samples` takes them
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
            shown = " ".join(repr(value).split())[:_LONGEST_VALUE]
            raise UsageError(
                f"{name}: {metric} of an item can be {shown}, not a number from 0 to 1, so runs cannot be compared by "
                f"it; have it give 0 to 1, or give another --metric-of {name}=METRIC"
            )
    return all(value in (0, 1) for value in values)


def _tried(task: Any, metric: str, reading: str, doc: Document) -> Iterator[Any]:
    """The metric of answers that are right, half right, too long and empty, or of made-up likelihoods."""
    if task.OUTPUT_TYPE == "generate_until":
        right = pair(task, doc)[1].split()
        for answer in (right, right[: len(right) // 2 + 1], [*right, "or", "not"], []):
            yield value_of(task, metric, reading, doc, " ".join(answer))[0]
        return
    for results in _likelihoods(task, doc):
        yield task.process_results(dict(doc), results).get(metric)


def _likelihoods(task: Any, doc: Document) -> Iterator[Sequence[Any]]:
    """What an engine could answer: the first choice most likely, then the last; without choices a text that is the
    greedy answer, then one that is not.
    """
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        yield [-1.0]
        return
    count = len(choices_of(task, doc) or ())
    if not count:
        yield from ([(-1.0, True)], [(-1.0, False)])
        return
    twice = 2 if "acc_mutual_info" in task.aggregation() else 1  # which asks the choices without the prompt as well
    ranked = [(-1.0 - place, place == 0) for place in range(count)]
    yield from (ranked * twice, ranked[::-1] * twice)

"""Whether the data sets of a run are here or can be fetched, and what grades them is here, before anything that takes
long.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import MeasurementError
from harness.core.types.evaluation import SIMILARITY
from harness.evaluation.similarity import check_packages
from harness.pipeline.named_tasks import check_at_hand, check_calibration
from harness.pipeline.resolve import ResolvedRun
from harness.pipeline.width_search import check_held_out
from tasks import sandbox
from tasks.data import trusting
from tasks.task import Task


def check_data(spec: ResolvedRun, evaluated: bool = True) -> None:
    """Loads what is evaluated and what neurons are scored on; data of the Hub are then in its cache.

    Args:
        evaluated: Whether the tasks are evaluated; a scoring alone needs no test items.

    Raises:
        UsageError: A data set cannot be loaded, or leaves a search that measures damage nothing to measure it on.
        MeasurementError: The tasks need a sandbox and there is none.
    """
    if evaluated:
        check_tools(spec.tasks)
        check_at_hand(spec.tasks, spec.config.trust_data)
    if spec.arms:
        check_calibration(spec.target, spec.config)
        if evaluated and (spec.widths_searched or spec.structure == "joint"):
            with trusting(spec.config.trust_data):
                check_held_out(spec.target, spec.calibration_request)


def check_tools(tasks: Sequence[Task]) -> None:
    """Raises MeasurementError where the tasks need a sandbox and there is none, UsageError for a missing package."""
    if any(task.metric == SIMILARITY for task in tasks):
        check_packages()
    if any(task.kind == "code" for task in tasks) and (reason := sandbox.available()):
        raise MeasurementError(reason)

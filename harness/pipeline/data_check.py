"""Whether the data sets of a run are here or can be fetched, before anything that takes long."""

from __future__ import annotations

from harness.pipeline.named_tasks import check_at_hand, check_calibration
from harness.pipeline.resolve import ResolvedRun


def check_data(spec: ResolvedRun, evaluated: bool = True) -> None:
    """Loads what is evaluated and what neurons are scored on; data of the Hub are then in its cache.

    Args:
        evaluated: Whether the tasks are evaluated; a scoring alone needs no test items.

    Raises:
        UsageError: A data set cannot be loaded.
    """
    if evaluated:
        check_at_hand(spec.tasks, spec.config.trust_data)
    if spec.arms:
        check_calibration(spec.target, spec.config)

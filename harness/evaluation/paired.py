"""Two variants on the items that both answered: differences with intervals, from the sample files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.core.jsonl import read_rows
from harness.core.mask_statistics import difference_over_masks, mean_over_masks
from harness.core.statistics import paired_difference, ratio_mean
from harness.core.types.evaluation import LIKELIHOOD_METRICS, Comparison, is_mean_score
from harness.core.types.training import Recovery

Samples = Mapping[int, Mapping[str, Any]]  # doc_id -> row of a samples file


def compare(folder: Path, baseline: str, variant: str, task: str, metric: str) -> Comparison:
    """`variant` minus `baseline` of one run on one task, paired by item."""
    then, now = (read_samples(folder / "samples" / name / f"{task}.jsonl") for name in (baseline, variant))
    return compare_samples(then, now, baseline, variant, task, metric)


def compare_samples(then: Samples, now: Samples, baseline: str, variant: str, task: str, metric: str) -> Comparison:
    """`now` minus `then`, on the items that both hold.

    Args:
        then, now: doc_id -> row of a samples file, of `baseline` and of `variant`.
        metric: Decides what is compared: likelihoods, scores, or right and wrong answers.

    Returns:
        The difference with its 95 % interval; flips and McNemar's test for right and wrong answers only.
    """
    shared = sorted(then.keys() & now.keys())
    flips: dict[str, Any] = {"lost": None, "gained": None, "mcnemar_p": None}
    if metric in LIKELIHOOD_METRICS:
        scale = math.log(2) if metric == "bits_per_byte" else 1.0
        changes = [(now[i]["nll"] - then[i]["nll"]) / scale for i in shared]
        difference, low, high = ratio_mean(changes, [then[i]["units"] for i in shared])
    elif is_mean_score(metric):
        changes = [now[i]["score"] - then[i]["score"] for i in shared]
        difference, low, high = ratio_mean(changes, [1] * len(changes))
    else:
        paired = paired_difference([then[i]["correct"] for i in shared], [now[i]["correct"] for i in shared])
        difference, low, high = paired.difference, paired.ci_low, paired.ci_high
        flips = {"lost": paired.lost, "gained": paired.gained, "mcnemar_p": paired.p_value}
    return Comparison(
        variant=variant,
        baseline=baseline,
        task=task,
        n=len(shared),
        difference=difference,
        ci_low=low,
        ci_high=high,
        metric=metric,
        **flips,
    )


def recovered_fraction(
    folder: Path, before: str, variants: Sequence[str], controls: Sequence[str], task: str
) -> Recovery:
    """Over seeds of fine-tuning and the items that all answered; the rule is claim 6's of the method.

    Args:
        folder: The run directory.
        before: What was fine-tuned.
        variants: It fine-tuned, one per seed.
        controls: The base model fine-tuned with the same seeds.
    """
    names = (before, *variants, *controls)
    tables = [read_correct(folder / "samples" / name / f"{task}.jsonl") for name in names]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    then, *rest = (np.array([float(table[i]) for i in shared]) for table in tables)
    after, aim = np.array(rest[: len(variants)]), np.array(rest[len(variants) :])
    difference, low, high = mean_over_masks(after - (then + aim) / 2)
    gain, gap = (difference_over_masks(then.tolist(), each.tolist()) for each in (after, aim))
    return Recovery(
        variant=variants[0],
        before=before,
        control=controls[0],
        task=task,
        n=len(shared),
        share=gain[0] / gap[0] if gap[1] > 0 else None,
        margin_over_half=difference,
        ci_low=low,
        ci_high=high,
        gain=gain,
        gap=gap,
        seeds=len(variants),
    )


def read_samples(path: Path) -> dict[int, dict[str, Any]]:
    return {row["doc_id"]: row for row in read_rows(path)}


def read_correct(path: Path) -> dict[int, bool]:
    return {i: row["correct"] for i, row in read_samples(path).items()}

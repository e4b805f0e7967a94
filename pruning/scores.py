"""One registered pure function per metric: statistics in, float32 [layers, intermediate_size] out, higher = keep.

A new metric is one function with its source in the docstring, decorated with @metric("name"), or the object of an entry
point of another package in the group `harness.metrics`. Notation: T the task's
prompts, D the distractors, m_ij the mean over prompt i's tokens of |h_j|, mu and sigma its mean and population standard
deviation over prompts, E a mean over tokens, W_j column j of down_proj.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from harness.core.errors import UsageError, first_line
from harness.core.installed import Installed
from harness.core.labels import metric_id, metric_label
from harness.core.progress import say
from harness.core.types.arrays import FloatArray
from harness.core.types.pruning import ActivationStats, GroupStats

Metric = Callable[[ActivationStats], FloatArray]
METRICS: dict[str, Metric] = {}
NEEDS: dict[
    str, str
] = {}  # metric -> what it needs beyond the hook's statistics: "gate", "gradient" or "second moments"
UNIT_FREE = {
    "smd",
    "dprime",
    "ratio-abs",
    "ratio-rms",
    "ratio-std",
    "ratio-freq",
    "contrast",
    "auroc",
    "lape",
    "taylor",
    "obs",
}
OBS = "obs"  # removal order from the layer's second moments (pruning/obs.py), no function of the statistics here
_EPSILON, _FREQUENCY_EPSILON = 1e-6, 1e-3
_NAME = re.compile(r"(?!best$|obs$)[a-z][a-z0-9-]*")  # of another package's metric: part of file names and of keys


def metric(name: str, needs: str = "") -> Callable[[Metric], Metric]:
    def register(function: Metric) -> Metric:
        METRICS[name] = function
        if needs:
            NEEDS[name] = needs
        return function

    return register


NEEDS[OBS] = "second moments"


def _is_metric(name: str, found: object) -> bool:
    return callable(found) and bool(found.__doc__) and bool(_NAME.fullmatch(name))


_WITH_INSTALLED: Installed[Metric] = Installed(METRICS, "harness.metrics", "metric", _is_metric)


def known_metrics() -> list[str]:
    return sorted({*_WITH_INSTALLED, OBS})


def describe_metrics() -> tuple[tuple[str, str], ...]:
    """The name that users see and the first paragraph of what each is."""
    rows = [
        (metric_label(name), " ".join(_first_paragraph(function).split()).rstrip(".:"))
        for name, function in _WITH_INSTALLED.loadable()
    ]
    order = "removal order of the structured optimal brain surgeon on the layer's second moments (pruning/obs.py)"
    return (("best", "obs with re-fitted columns; the default for compression"), *rows, (OBS, order))


def _first_paragraph(metric: object) -> str:
    return str(metric.__doc__).split("\n\n")[0]


def check_metric(name: str, besides: tuple[str, ...] = ()) -> str:
    """The metric as files call it, `smd` for S; raises UsageError for a name that is not a metric, and for one of
    another package that cannot be loaded.

    Args:
        name: as users write it.
        besides: other names that would be right in its place, for the message.
    """
    name = metric_id(name)
    if name not in known_metrics():
        shown = ("best", *besides, *map(metric_label, known_metrics()))
        near = difflib.get_close_matches(name, ("best", *besides, *known_metrics()), n=1)
        hint = f"did you mean {metric_label(near[0])}?" if near else f"known are {', '.join(shown)}"
        raise UsageError(f"unknown metric {name!r}; {hint}")
    _WITH_INSTALLED.get(name)  # loaded before any work is done
    return name


def score(
    stats: ActivationStats, names: Sequence[str] | None = None, asked: Collection[str] = ()
) -> dict[str, FloatArray]:
    """The named metrics as float32, by default all that `stats` suffices for. Of those a metric of another package that
    fails is left out, with a line said, unless it is among `asked`.

    Raises UsageError for an unknown name, and where a metric fails or gives anything but a number for each neuron.
    """
    if names is not None:
        return {name: _table(stats, name) for name in names}
    found = {}
    for name in _WITH_INSTALLED:
        if _suffices(stats, name):
            try:
                found[name] = _table(stats, name)
            except UsageError as error:
                if name in asked:
                    raise
                say(f"left out: {error}")
    return found


def _table(stats: ActivationStats, name: str) -> FloatArray:
    function = _WITH_INSTALLED[check_metric(name)]
    try:
        values = np.asarray(function(stats))
    except Exception as error:
        if name in METRICS:
            raise
        raise UsageError(f"the metric {name} of an installed package failed: {first_line(error)}") from error
    if values.shape != stats.down_norm.shape or values.dtype.kind not in "fiu":
        raise UsageError(
            f"the metric {name} gave {values.dtype} {list(values.shape)}, not a number for each of "
            f"{list(stats.down_norm.shape)} neurons; mend its function"
        )
    return values.astype(np.float32)


def _suffices(stats: ActivationStats, name: str) -> bool:
    have = {"gate": stats.target.gate_open is not None, "gradient": stats.saliency is not None}
    return have.get(NEEDS.get(name, ""), True)


def _sigma(group: GroupStats) -> FloatArray:
    return np.sqrt(group.prompts.m2 / group.prompts.count)


@metric("smd")
def standardised_mean_difference(stats: ActivationStats) -> FloatArray:
    """S_j = (mu_T - mu_D) / (sigma_all + 1e-6), sigma_all over all scored prompts (arXiv 2604.27115).

    Which neurons are specific to the task; the paper's score and the one for reverse pruning.
    """
    target, distractor = stats.target.prompts, stats.distractor.prompts
    n = target.count + distractor.count
    difference = target.mean - distractor.mean
    between = difference**2 * (target.count * distractor.count / n)
    sigma_all = np.sqrt((target.m2 + distractor.m2 + between) / n)
    return difference / (sigma_all + _EPSILON)


@metric("dprime")
def sensitivity_index(stats: ActivationStats) -> FloatArray:
    """d' = (mu_T - mu_D) / sqrt((sigma_T^2 + sigma_D^2) / 2): signal detection's sensitivity (Green and Swets 1966; no
    arXiv).
    """
    pooled = np.sqrt((_sigma(stats.target) ** 2 + _sigma(stats.distractor) ** 2) / 2)
    return (stats.target.prompts.mean - stats.distractor.prompts.mean) / (pooled + _EPSILON)


@metric("ratio-abs")
def ratio_of_absolute_means(stats: ActivationStats) -> FloatArray:
    """E_T|h| / (E_D|h| + 1e-6) (Pochinkov and Schoots, arXiv 2403.01267)."""
    return stats.target.mean_abs / (stats.distractor.mean_abs + _EPSILON)


@metric("ratio-rms")
def ratio_of_root_mean_squares(stats: ActivationStats) -> FloatArray:
    """sqrt(E_T h^2) / (sqrt(E_D h^2) + 1e-6) (arXiv 2403.01267)."""
    return np.sqrt(stats.target.mean_square) / (np.sqrt(stats.distractor.mean_square) + _EPSILON)


@metric("ratio-std")
def ratio_of_standard_deviations(stats: ActivationStats) -> FloatArray:
    """std_T(h) / (std_D(h) + 1e-6) over tokens (arXiv 2403.01267)."""
    return np.sqrt(stats.target.variance) / (np.sqrt(stats.distractor.variance) + _EPSILON)


@metric("ratio-freq")
def ratio_of_frequencies(stats: ActivationStats) -> FloatArray:
    """P_T(h > 0) / (P_D(h > 0) + 1e-3) over tokens (arXiv 2403.01267)."""
    return stats.target.positive / (stats.distractor.positive + _FREQUENCY_EPSILON)


@metric("contrast")
def contrast_index(stats: ActivationStats) -> FloatArray:
    """(mu_T - mu_D) / (mu_T + mu_D), in [-1, 1]: the class-selectivity index (Morcos et al., arXiv 1803.06959)."""
    target, distractor = stats.target.prompts.mean, stats.distractor.prompts.mean
    return (target - distractor) / (target + distractor + np.finfo(float).tiny)


@metric("auroc")
def cliffs_delta(stats: ActivationStats) -> FloatArray:
    """2 P(m_T > m_D) + P(m_T = m_D) - 1, Cliff's delta, in [-1, 1], on at most 256 prompts a group.

    The rank form of a skill neuron's predictivity (Wang et al., arXiv 2211.07349).
    """
    import torch
    from scipy.stats import rankdata

    target, distractor = stats.target.sample, stats.distractor.sample
    n, m = len(target), len(distractor)

    def rank_sums(layer: int) -> FloatArray:
        ranks = rankdata(np.concatenate([target[:, layer], distractor[:, layer]]), axis=0)
        return np.asarray(ranks[:n].sum(axis=0))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # a sort of NumPy's leaves the other threads running
        layers = np.stack(list(pool.map(rank_sums, range(target.shape[1]))))
    return np.asarray(2 * (layers - n * (n + 1) / 2) / (n * m) - 1)


@metric("lape", needs="gate")
def language_activation_probability_entropy(stats: ActivationStats) -> FloatArray:
    """(ln 2 - H) signed by the group where the gate is open more often, H the entropy of p_k / sum(p), p_k = P_k(gate >
    0).

    Tang et al., arXiv 2402.16438, who keep the low-entropy neurons of every language; the sign is ours, since theirs
    has no direction.
    """
    assert stats.target.gate_open is not None and stats.distractor.gate_open is not None
    p = np.stack([stats.target.gate_open, stats.distractor.gate_open])
    share = p / np.maximum(p.sum(axis=0), np.finfo(float).tiny)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=0)
    return np.asarray(np.sign(p[0] - p[1]) * (np.log(2) - entropy))


@metric("contrib")
def mean_contribution(stats: ActivationStats) -> FloatArray:
    """E_T|h_j| * ||W_j||: the mean size of what neuron j writes (Minitron's channel contribution, arXiv 2407.14679)."""
    return stats.target.mean_abs * stats.down_norm


@metric("rms")
def root_mean_square_contribution(stats: ActivationStats) -> FloatArray:
    """sqrt(E_T h_j^2) * ||W_j||.

    The root mean square of what neuron j writes into the residual stream: Wanda's |W| * ||X|| (arXiv 2306.11695), taken
    over a whole column. Which neurons the task needs.
    """
    return np.sqrt(stats.target.mean_square) * stats.down_norm


@metric("wifv")
def weighted_fluctuation(stats: ActivationStats) -> FloatArray:
    """Var_T(h_j) * ||W_j||^2 over tokens: FLAP's fluctuation score (arXiv 2312.11983), without its bias."""
    return stats.target.variance * stats.down_norm**2


@metric("weight")
def weight_norm(stats: ActivationStats) -> FloatArray:
    """||W_j||, no data at all: the magnitude baseline (Li et al., arXiv 1608.08710)."""
    return stats.down_norm


@metric("taylor", needs="gradient")
def first_order_saliency(stats: ActivationStats) -> FloatArray:
    """Mean over task prompts of |sum over tokens of h_j dL/dh_j|, the summed gradient * weight of W_j: a variant of
    LLM-Pruner's (arXiv 2305.11627), which takes | | of the sum over all prompts.
    """
    assert stats.saliency is not None
    return stats.saliency

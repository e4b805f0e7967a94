"""The names by which users know a way of pruning: in variants, tables, reports and docs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_ROUNDING = 0.005  # between the ratio that is asked and the one that is done: no more than that is not told
STRUCTURE_NOUNS = {  # one of what can be removed, by its name in settings and files
    "neuron": "FFN neuron",
    "kv_group": "KV group",
    "attention": "attention block",
    "ffn": "FFN block",
    "layer": "layer",
    "joint": "FFN neurons, attention and layer",
}
RECONSTRUCTED = "rec"  # in the name of a variant
_SHOWN = {"smd": "S"}  # metric in files -> the name that users see, and may give


def metric_id(name: str) -> str:
    """The metric as files call it: the paper's S is stored as smd."""
    return next((metric for metric, shown in _SHOWN.items() if shown == name), name)


def metric_label(metric: str, compensated: bool = False, sequential: bool = False) -> str:
    """`S` for smd, `best` for obs with re-fitted columns, else the metric and how its columns are re-fitted."""
    if (metric, compensated, sequential) == ("obs", True, False):
        return "best"
    return "-".join(filter(None, (_SHOWN.get(metric, metric), _refit(compensated, sequential))))


def arm_label(
    method: str,
    metric: str | None,
    compensated: bool = False,
    sequential: bool = False,
    allocation: str | None = None,
    reconstructed: bool = False,
) -> str:
    """A way of pruning without its ratio and seed: selective-best, reverse-S, random, selective-rms-refit-global,
    selective-best-rec.
    """
    if method == "matched":
        return method
    what = metric_label(metric, compensated, sequential) if metric else _refit(compensated, sequential)
    parts = (method, what, RECONSTRUCTED if reconstructed else None, None if allocation == "uniform" else allocation)
    return "-".join(filter(None, parts))


def ratio_label(asked: float, done: float) -> str:
    """A ratio in the name of a variant: the one that was asked, or where alignment changes it the one that is done."""
    return f"{asked if is_as_asked(asked, done) else round(done, 3):g}"


def is_as_asked(asked: float, done: float) -> bool:
    """Whether the share of neurons that is removed differs from the requested one by no more than half a point."""
    return abs(asked - done) <= _ROUNDING


def asked_and_done(ratios: Iterable[tuple[float, float]], why: str) -> str | None:
    """One line on the ratios that are not done as asked: (asked, done) each; None where there are none."""
    changed = [
        f"asked {100 * asked:g} %, doing {100 * done:.1f} %" for asked, done in ratios if not is_as_asked(asked, done)
    ]
    return f"{'; '.join(changed)}: {why}" if changed else None


def width_text(widths: Sequence[int]) -> str:
    """The intermediate sizes of a model's layers: one number where they are uniform, else their range."""
    return str(widths[0]) if len(set(widths)) == 1 else f"{min(widths)} to {max(widths)}"


def _refit(compensated: bool, sequential: bool) -> str | None:
    return None if not compensated else "sequential" if sequential else "refit"

"""What a sweep will do: its grid of arms from methods, ratios and seeds, before any weights are touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.labels import RECONSTRUCTED
from harness.core.types.pruning import ModelShape
from harness.engine.devices import check_gpus
from harness.pipeline.arms import Arm, alignment_of, check_neurons, make_arm
from harness.pipeline.named_tasks import task_names
from harness.pipeline.resolve import DENSE, ResolvedRun, check_several_items, tasks_and_shape, without_arms
from pruning.plan import pruned_width, real_ratio, uniform_width

RANDOM, MATCHED = "random", "matched"
NEAR = 0.01  # distance from a ratio that a rule names: the paper's 10 % is 10.135 %
WEIGHED_AT = 0.3
CLAIMED = (0.10, 0.35)  # the lowest and the highest ratio of the claim about random pruning
_RATIOS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35)  # the paper's, rounded


def resolve_sweep(config: RunConfig, chat: bool = True) -> ResolvedRun:
    """Resolves `harness sweep`: every check that needs no weights.

    The first method's arms are timed beside the dense model, since speed depends on the widths alone.

    Raises:
        UsageError: For the first setting that is wrong.
    """
    check_neurons(config, "sweep")
    if config.sweep.launcher == "local":  # Ray counts its own
        check_gpus(config.tensor_parallel, config.sweep.workers or 1)
    names = task_names(config)
    if len(names) == 1 and config.sweep.off_target:
        others = [name for name in config.sweep.off_target if not (config.preset and name in names)]
        config = config.model_copy(update={"task": (*names, *others)})
    tasks, shape = tasks_and_shape(config, chat)
    arms = tuple(_arms(config, shape))
    names_of = [arm.name for arm in arms]
    if twice := next((name for name in names_of if names_of.count(name) > 1), None):
        raise UsageError(f"{twice} would come out twice; give --ratios and --methods that differ")
    recovered = tuple(
        dict.fromkeys(name for method in config.sweep.recovered for name in _recovered(config, method, shape))
    )
    timed = tuple(arm.name for arm in arms if arm.kind == arms[0].kind and arm.request.seed == arms[0].request.seed)
    base = without_arms(config, tasks, shape)
    check_several_items(base)
    return replace(
        base,
        arms=arms,
        recovered=recovered,
        recovery_seeds=config.sweep.recovery_seeds,
        served=(DENSE, *timed),
        exported=_exported(shape, arms, timed, recovered),
        sweep=True,
        masks=tuple(_masks(config, shape)),
    )


def _exported(
    shape: ModelShape, arms: Sequence[Arm], timed: Sequence[str], recovered: Sequence[str]
) -> tuple[str, ...]:
    """Arms that are written: those to be fine-tuned, and the timed arm at 30 %, or the last, to check its size."""
    ratios = {real_ratio(arm.request, shape.intermediate_size): arm.name for arm in arms if arm.name in timed}
    weighed = ratios[near(WEIGHED_AT, list(ratios)) or max(ratios)]
    return tuple(dict.fromkeys((weighed, *(name for name in recovered if name != DENSE))))


def ratios_of(config: RunConfig, shape: ModelShape) -> tuple[float, ...]:
    """The ratios in ascending order without 0, which is the dense model."""
    chosen = config.sweep.ratios or config.sweep.ratios_by_width.get(shape.intermediate_size)
    found = tuple(sorted({ratio for ratio in chosen or _RATIOS if ratio != 0}))
    if not found:
        raise UsageError("a sweep needs a ratio above 0; give --ratios like 0.1,0.2,0.3")
    alignment = alignment_of(config, shape.intermediate_size)
    widths = {ratio: _width(config, ratio, shape) for ratio in found}
    alike = [ratio for ratio in found if list(widths.values()).count(widths[ratio]) > 1]
    if chosen and alike:
        same = [ratio for ratio in alike if widths[ratio] == widths[alike[0]]]
        raise UsageError(
            f"ratios {', '.join(f'{ratio:g}' for ratio in same)} all leave a width of {widths[alike[0]]} at alignment "
            f"{alignment}, which is one model; give --ratios further apart or a smaller --align"
        )
    return tuple(_nearest(widths, shape.intermediate_size))


def _width(config: RunConfig, ratio: float, shape: ModelShape) -> int:
    return pruned_width(shape.intermediate_size, ratio, alignment_of(config, shape.intermediate_size))


def _nearest(widths: Mapping[float, int], intermediate_size: int) -> list[float]:
    """Of the ratios with the same width, the one that is nearest to what the width removes."""
    nearest: dict[int, float] = {}
    for ratio, width in widths.items():
        nearest.setdefault(width, ratio)
        removed = 1 - width / intermediate_size
        nearest[width] = min(nearest[width], ratio, key=lambda asked: abs(asked - removed))
    return sorted(nearest.values())


def near(ratio: float, among: Sequence[float]) -> float | None:
    """The ratio that is meant by `ratio`; None where none is close enough."""
    best = min(among, key=lambda other: abs(other - ratio), default=None)
    return best if best is not None and abs(best - ratio) <= NEAR else None


def _arms(config: RunConfig, shape: ModelShape) -> Iterator[Arm]:
    for method in dict.fromkeys(config.sweep.methods):
        for ratio in ratios_of(config, shape):
            if method == MATCHED and 2 * _width(config, ratio, shape) < shape.intermediate_size:
                continue  # not every neuron has another one as its match
            for seed in dict.fromkeys(config.sweep.seeds) if method == RANDOM else (config.seed,):
                yield method_arm(config, method, ratio, seed, shape)


def _masks(config: RunConfig, shape: ModelShape) -> Iterator[Arm]:
    """Random arms beyond --seeds, up to --masks at every ratio of the claim about random pruning."""
    seeds = tuple(dict.fromkeys(config.sweep.seeds))
    more = (config.sweep.masks or 0) - len(seeds)
    if RANDOM not in config.sweep.methods or more < 1:
        return
    others = list(itertools.islice((seed for seed in itertools.count() if seed not in seeds), more))
    for ratio in ratios_of(config, shape):
        found = [method_arm(config, RANDOM, ratio, seed, shape) for seed in others]
        if is_claimed(real_ratio(found[0].request, shape.intermediate_size)):
            yield from found


def is_claimed(ratio: float) -> bool:
    """Whether a share of neurons is among those of the claim about random pruning."""
    return CLAIMED[0] - NEAR <= ratio <= CLAIMED[1] + NEAR


def method_arm(config: RunConfig, method: str, ratio: float, seed: int, shape: ModelShape) -> Arm:
    """The arm of one of a sweep's methods at a ratio; raises UsageError for an unknown method."""
    name, *repairs = method.split("+")
    if repairs not in ([], ["refit"], ["refit", RECONSTRUCTED], [RECONSTRUCTED]):
        raise UsageError(
            f"unknown method {method!r}; a metric with its columns re-fitted is {name}+refit, with each layer "
            f"reconstructed as well {name}+{RECONSTRUCTED}"
        )
    own = name in (RANDOM, "reverse", MATCHED)
    chosen: dict[str, Any] = {"method": name if own else "selective", "metric": None if own else name}
    chosen |= {"compensate": True if repairs else None, "reconstruct": RECONSTRUCTED in repairs}
    chosen |= {"ratio": ratio, "seed": seed}
    if name == RANDOM or (own and config.allocation == "search"):
        chosen["allocation"] = "uniform"
    return make_arm(config.model_copy(update=chosen), chosen["method"], shape)


def _recovered(config: RunConfig, method: str, shape: ModelShape) -> Iterator[str]:
    """Names of the arms to fine-tune; for random, those of the first seed."""
    if method == DENSE:
        yield DENSE
        return
    if method not in config.sweep.methods:
        raise UsageError(
            f"--recovered names {method!r}, which is not among the methods {', '.join(config.sweep.methods)}"
        )
    for wanted in config.sweep.recovery_ratios:
        real = {1 - _width(config, ratio, shape) / shape.intermediate_size: ratio for ratio in ratios_of(config, shape)}
        ratio = near(wanted, list(real.values())) or real.get(near(wanted, list(real)) or 0.0)
        if ratio is None:
            raise UsageError(
                f"--recovery-ratios names {wanted:g}, which is not among the ratios of the sweep; add it to --ratios"
            )
        yield method_arm(config, method, ratio, config.sweep.seeds[0] if method == RANDOM else config.seed, shape).name


@dataclass(frozen=True)
class GridRow:
    """One ratio of a sweep, as requested and of the neurons that are removed, the FFN width of every layer and the
    parameters that are left.
    """

    ratio: float
    ratio_neurons: float
    intermediate_size: int
    parameters: int


def grid_rows(spec: ResolvedRun) -> list[GridRow]:
    """One row per ratio, where all layers have the same width."""
    rows = []
    for ratio in dict.fromkeys(arm.request.ratio for arm in spec.arms):
        request = next(arm.request for arm in spec.arms if arm.request.ratio == ratio)
        whole = spec.shape.intermediate_size
        width = uniform_width(request, whole)
        left = spec.shape.pruned_parameters((width,) * spec.shape.num_hidden_layers)
        rows.append(GridRow(ratio, real_ratio(request, whole), width, left))
    return rows

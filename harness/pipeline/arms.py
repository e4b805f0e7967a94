"""The arms of a run: what each removes, by the settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from harness.config.settings import RunConfig
from harness.core.errors import UsageError
from harness.core.labels import arm_label, ratio_label
from harness.core.types.pruning import Allocation, Method, ModelShape
from pruning.checkpoint import check_uniform_width
from pruning.families import FAMILIES, check_nonuniform
from pruning.plan import PlanRequest, check_request, choose_metric, default_alignment, real_ratio, uniform_width
from pruning.structures import check_groups_left, check_structure, count_of


@dataclass(frozen=True)
class Arm:
    """A pruned variant of the model: its name, such as selective-rms-0.2, what is removed, and its name without ratio
    and seed.
    """

    name: str
    request: PlanRequest
    kind: str


@dataclass(frozen=True)
class FineTuning:
    """One fine-tuning of a variant. seed: added to the run's; the names of those with the first seed have none."""

    before: str
    seed: int = 0

    @property
    def label(self) -> str:
        """Of its files and stages."""
        return f"{self.before}-{self.seed + 1}" if self.seed else self.before

    @property
    def name(self) -> str:
        """Of the variant that it makes."""
        return f"{self.before}-recovered" + (f"-{self.seed + 1}" if self.seed else "")


def make_arm(config: RunConfig, method: str, shape: ModelShape) -> Arm:
    """Raises UsageError for a model that cannot be pruned again, and for a plan that cannot be made of it."""
    if config.structure == "joint":
        raise UsageError(
            "--structure joint is searched for a goal with `harness run`; give --speedup, --params or --fits there, or "
            "use another --structure"
        )
    check_uniform_width(shape, config.model)
    check_structure(config.structure, shape)
    whole = count_of(config.structure, shape)
    request = plan_request(config, whole, method)
    check_request(request, whole)
    if config.structure == "kv_group" and request.allocation == "uniform":
        check_groups_left(shape, uniform_width(request, whole))
    if request.allocation != "uniform":
        check_nonuniform(FAMILIES[shape.model_type])
    refit = request.compensated, config.sequential
    kind = arm_label(method, request.metric, *refit, request.allocation, request.reconstructed)
    kind = kind if config.structure == "neuron" else f"{config.structure}-{kind}"
    ratio = ratio_label(config.ratio, real_ratio(request, whole))
    return Arm(f"{kind}-{ratio}" + (f"-seed{config.seed}" if method == "random" else ""), request, kind)


def plan_request(config: RunConfig, whole: int, method: str | None = None) -> PlanRequest:
    """whole: of what the ratio is a share, such as intermediate_size. `method` None: the one of `config`. The metric
    applies to `method` and to reverse arms only; re-fitting to `method` only.
    """
    own = method in (None, config.method)
    chosen: Method = config.method if own else cast(Method, method)
    shared = own or (chosen == "reverse" and config.metric != "best")
    metric, compensated = choose_metric(
        chosen, config.metric if shared else None, config.compensate if own else False, config.structure
    )
    return PlanRequest(
        ratio=config.ratio,
        method=chosen,
        metric=metric,
        seed=config.seed,
        alignment=alignment_of(config, whole) if config.structure == "neuron" else _alignment_of_heads(config),
        structure=config.structure,
        allocation=_allocation(config, chosen, own),
        min_width=config.min_width,
        protect=config.protect,
        compensated=compensated,
        sequential=config.sequential and own,
        reconstructed=config.reconstruct and own,
    )


def _allocation(config: RunConfig, method: Method, own: bool) -> Allocation:
    """A random choice has no ranking over layers, and only what should cost least is searched."""
    return config.allocation if own or (method != "random" and config.allocation != "search") else "uniform"


def _alignment_of_heads(config: RunConfig) -> int:
    """What numbers of KV groups are multiples of, so that the GPUs can divide them."""
    return config.align or config.tensor_parallel


def alignment_of(config: RunConfig, intermediate_size: int) -> int:
    """What FFN widths are multiples of; raises UsageError for one that the GPUs cannot divide."""
    least = default_alignment(intermediate_size) * config.tensor_parallel
    if config.align and config.align % config.tensor_parallel:
        raise UsageError(
            f"--align {config.align} is not a multiple of --tensor-parallel {config.tensor_parallel}, and vLLM could "
            f"not divide the pruned widths; give --align {least}"
        )
    return config.align or least


def check_neurons(config: RunConfig, command: str) -> None:
    """Raises UsageError for a command that knows neurons alone."""
    if config.structure != "neuron":
        raise UsageError(f"`harness {command}` removes FFN neurons, not each {config.structure}; use `harness run`")

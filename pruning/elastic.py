"""One folder for every width: the neurons of each layer stand in the order in which they stay, so that its first N are
those of the model pruned to N.

At full width it is the dense model: a permutation of neurons, rows of gate and up and columns of down alike, changes
no output. vLLM's loader takes the leading rows and columns of a tensor that is wider than config.json says
(`harness/engine/narrow_loading.py`), so it serves any narrower width by `--hf-overrides`. `narrowed` writes one as a
folder of its own, for what does not load so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from harness.core.bounded_read import read_text
from harness.core.errors import UnsupportedModelError, UsageError
from harness.core.files import check_disk, load_arrays, save_arrays
from harness.core.metadata import Metadata, count_of, fraction_of, model_kind_of, name_of, reason
from harness.core.model_card import MADE, NO_CLAIM, ORIGINAL, QUALITY, TUNED, ModelCard, inherited, read, render
from harness.core.text import code_span, markdown
from harness.core.types.arrays import IndexArray
from harness.core.types.calibration import TokenScope
from harness.core.types.pruning import Method, NeuronScores, PruningPlan
from harness.core.written_folder import Replaceable, written_folder
from pruning.checkpoint import ModelFolder, check_uniform_width, open_model
from pruning.config_sizes import MOST_SIZES
from pruning.export import PLAN_COPY, replaceable, write_gathered, write_own_files
from pruning.families import Family
from pruning.plan import PlanRequest, removal_order
from pruning.plan_file import save_plan
from pruning.side_files import copy_own_files, copy_side_files, is_ours

ORDER = "pruning/order.safetensors"  # in the folder: the order of every layer, and where it comes from
_METHODS = ("selective", "reverse", "random")  # each keeps at a width a part of what it keeps at a larger one
_MOST_BYTES, _MOST = 1 << 30, 10**18 - 1
_TOLD = ("method", "model", "model_kind", "model_hash", "scores_hash", "tokens")
_MADE = """Made from {model}: in every layer the {size} FFN neurons stand in the order in which {how} pruning keeps
them. At full width it computes what that model computes.

Stock vLLM serves any narrower width of this folder:

    vllm serve FOLDER --hf-overrides '{{"{key}": {example}}}'

Any width up to {size} works; multiples of {alignment} suit the hardware. transformers loads the full width only;
`harness slice FOLDER N --out NARROW` writes width N as a folder of its own."""


@dataclass(frozen=True)
class Order:
    """Layer -> all its neurons as the dense model numbers them, the one that is removed last first.

    Attributes:
        alignment: What the widths that are worth serving are multiples of.
    """

    neurons: tuple[IndexArray, ...]
    method: Method
    metric: str | None
    seed: int
    alignment: int
    model: str
    model_kind: Any
    model_hash: str
    scores_hash: str
    tokens: TokenScope
    general_weight: float

    @property
    def intermediate_size(self) -> int:
        return len(self.neurons[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Multiples of the alignment from an eighth of the full width up, and the full width."""
        size, step = self.intermediate_size, self.alignment
        return (*range(max(step, -(-(size // 8) // step) * step), size, step), size)

    def plan(self, width: int) -> PruningPlan:
        """What pruning the dense model to this width keeps of it."""
        return self._keeping(tuple(np.sort(neurons[:width]) for neurons in self.neurons))

    def places(self, width: int) -> PruningPlan:
        """Where the kept neurons stand in the folder, in the order of their numbers in the dense model."""
        return self._keeping(tuple(np.argsort(neurons[:width]).astype(np.int32) for neurons in self.neurons))

    def whole(self) -> PruningPlan:
        """Every neuron of the dense model, in the order of the folder."""
        return self._keeping(self.neurons)

    def _keeping(self, keep: tuple[IndexArray, ...]) -> PruningPlan:
        return PruningPlan(
            keep=keep,
            intermediate_size=self.intermediate_size,
            metric=self.metric,
            ratio=round(1 - len(keep[0]) / self.intermediate_size, 9),  # 0.3, not 0.30000000000000004
            seed=self.seed,
            alignment=1,
            general_weight=self.general_weight,
            **{name: getattr(self, name) for name in _TOLD},
        )


def order_of(scores: NeuronScores, request: PlanRequest) -> Order:
    """The order that scores give by the request's method, metric and seed.

    Raises UsageError for a method that keeps other neurons at each width, and for scores of another structure or
    without the metric.
    """
    if scores.structure != "neuron":
        raise UsageError(f"an elastic folder is of FFN neurons, and the scores are of each {scores.structure}")
    if request.method not in _METHODS:
        raise UsageError(f"{request.method} keeps other neurons at each width; use --method {', '.join(_METHODS)}")
    return Order(
        neurons=removal_order(scores, request),
        method=request.method,
        metric=None if request.method == "random" else request.metric,
        seed=request.seed,
        alignment=request.alignment,
        model=scores.model,
        model_kind=scores.model_kind,
        model_hash=scores.model_hash,
        scores_hash=scores.file_hash,
        tokens=scores.tokens,
        general_weight=scores.general_weight,
    )


def check_elastic(family: Family) -> None:
    """Raises UnsupportedModelError where leading rows of the stored tensors are not leading neurons, or where
    config.json's width is not at its top level.
    """
    if fused := [cut.name for cut in family.cuts if cut.parts > 1]:
        raise UnsupportedModelError(
            f"{family.model_type} stores {fused[0]} as one tensor of two matrices, of which vLLM would take the wrong "
            "rows; prune to one width with `harness prune`"
        )
    if family.tower:
        raise UnsupportedModelError(
            f"{family.model_type} is a vision-language model, of which --hf-overrides does not reach the text model's "
            "width; prune to one width with `harness prune`"
        )


def write_elastic(
    model: ModelFolder, order: Order, out: Path, progress: Callable[[int], None] = lambda _: None
) -> ModelFolder:
    """Writes the folder with every layer's neurons in order, completely or not at all.

    Args:
        model: The dense model that was scored.
        order: From `order_of`.
        out: The folder to write; an elastic folder there is replaced where nothing was added.
        progress: Is called with 1 after every shard.

    Raises:
        UsageError: The order is another model's, or `out` holds something else.
        UnsupportedModelError: The family does not allow it (`check_elastic`), or the weights are damaged.
    """
    check_elastic(model.family)
    check_uniform_width(model.shape, model.path)
    if order.model_hash != model.fingerprint:
        raise UsageError(f"the scores are those of {order.model}, and {model.path} has other weights; score it first")
    if out.resolve() == model.path.resolve():
        raise UsageError(f"{out} is the model itself; give another --out")
    check_disk(out, model.weight_bytes)
    with written_folder(out, elastic_replaceable()) as scratch:
        copy_side_files(model, scratch)
        copy_own_files(model.path, scratch)
        write_gathered(model, order.whole(), scratch, progress)
        (scratch / ORDER).parent.mkdir(exist_ok=True)
        save_order(order, scratch / ORDER)
        (scratch / "README.md").write_text(_card(order, model), encoding="utf-8")
    return open_model(out)


def elastic_replaceable() -> Replaceable:
    """Which folders `write_elastic` may replace."""
    return Replaceable(ORDER, is_ours)


def narrowed(
    folder: ModelFolder, width: int, out: Path, progress: Callable[[int], None] = lambda _: None
) -> ModelFolder:
    """Writes one width of an elastic folder: tensor for tensor what `export` makes of the dense model at that width
    with the same scores.

    Raises:
        UsageError: `folder` is no elastic folder or not that wide, or `out` holds what no export wrote.
        UnsupportedModelError: The weights are damaged.
    """
    order = load_order(folder)
    if not 1 <= width <= order.intermediate_size:
        raise UsageError(f"{folder.path} has widths from 1 to {order.intermediate_size}, not {width}")
    if out.resolve() == folder.path.resolve():
        raise UsageError(f"{out} is the elastic folder itself; give another --out")
    check_disk(out, folder.weight_bytes * width // order.intermediate_size)
    plan, config = order.plan(width), {**folder.config, folder.family.width_key: width}
    with written_folder(out, replaceable()) as scratch:
        copy_side_files(folder, scratch)
        write_gathered(folder, order.places(width), scratch, progress)
        write_own_files(folder, scratch, plan, None, config)
        (scratch / PLAN_COPY).parent.mkdir(exist_ok=True)
        save_plan(plan, scratch / PLAN_COPY)
    return open_model(out)


def save_order(order: Order, path: Path) -> None:
    """`layers.{i}.order` int32 and where it comes from; the same order gives the same bytes."""
    metadata = {
        **{name: str(getattr(order, name)) for name in (*_TOLD, "seed", "alignment", "intermediate_size")},
        "metric": order.metric or "",
        "general_weight": repr(order.general_weight),
        "layers": str(len(order.neurons)),
        "widths": ",".join(map(str, order.widths)),
    }
    save_arrays(path, {f"layers.{i}.order": neurons for i, neurons in enumerate(order.neurons)}, metadata)


def load_order(folder: ModelFolder) -> Order:
    """Reads and checks the order of an elastic folder; raises UsageError where it has none that fits its sizes."""
    path = folder.path / ORDER
    if not path.exists():
        raise UsageError(f"{folder.path} is no elastic folder (it has no {ORDER}); make one with `harness elastic`")
    arrays, meta = load_arrays(path, "harness elastic", _MOST_BYTES)
    try:
        order = _order_of(arrays, meta)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path} is damaged ({reason(error)}); make it again with `harness elastic`") from error
    shape = folder.shape
    if (len(order.neurons), order.intermediate_size) != (shape.num_hidden_layers, shape.intermediate_size):
        raise UsageError(f"{path} is not the order of these weights; make the folder again with `harness elastic`")
    return order


def _order_of(arrays: Mapping[str, npt.NDArray[Any]], meta: Metadata) -> Order:
    """Raises KeyError or ValueError for what is missing or wrong."""
    layers = count_of(meta, "layers", MOST_SIZES["num_hidden_layers"], 1)
    size = count_of(meta, "intermediate_size", MOST_SIZES["intermediate_size"], 1)
    return Order(
        neurons=tuple(_permutation(arrays[f"layers.{i}.order"], f"layers.{i}.order", size) for i in range(layers)),
        method=name_of(meta, "method", tuple(set(get_args(Method)) & set(_METHODS))),
        metric=meta["metric"] or None,
        seed=count_of(meta, "seed", _MOST),
        alignment=count_of(meta, "alignment", _MOST, 1),
        model=meta["model"],
        model_kind=model_kind_of(meta),
        model_hash=meta["model_hash"],
        scores_hash=meta["scores_hash"],
        tokens=name_of(meta, "tokens", get_args(TokenScope)),
        general_weight=fraction_of(meta, "general_weight"),
    )


def _permutation(neurons: npt.NDArray[Any], name: str, size: int) -> IndexArray:
    if neurons.dtype.kind not in "iu" or not np.array_equal(np.sort(neurons), np.arange(size)):
        raise ValueError(f"{name} is not every one of {size} neurons once")
    return neurons.astype(np.int32)


def _card(order: Order, model: ModelFolder) -> str:
    """The card of an elastic folder, with what the original's own card says."""
    readme = model.path / "README.md"
    before = read(read_text(readme, errors="replace") if readme.exists() else "")
    name = order.model if order.model_kind in ("hub", "alias") else Path(order.model).name
    made = _MADE.format(
        model=code_span(name),
        size=order.intermediate_size,
        how=code_span(order.method) + (f" (metric {code_span(order.metric)})" if order.metric else ""),
        key=model.family.width_key,
        example=order.widths[len(order.widths) // 2],
        alignment=order.alignment,
    )
    base = {"base_model": order.model} if order.model_kind == "hub" else {}
    sections = {
        MADE: made,
        TUNED: before.sections.get(TUNED, ""),
        QUALITY: NO_CLAIM,
        ORIGINAL: before.sections.get(ORIGINAL) or "None.",
    }
    title = f"{markdown(name)}, neurons in the order of removal"
    return render(ModelCard({**inherited(before.front), **base}, title, sections))

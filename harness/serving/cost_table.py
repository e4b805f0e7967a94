"""What a layer, its attention, a neuron and a row of the vocabulary cost in time: linear in a model's structure, fitted
to a few timed ones. Pure, but for its file.

    seconds per output token = fixed + layer * layers + attention * layers with attention
                               + neuron * (sum of FFN widths) + row * entries of the vocabulary

A layer costs its norms and what surrounds it. Each coefficient is at least 0 (non-negative least squares, Lawson and
Hanson 1974, of the relative errors), so that less of a model never takes longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from harness.core.bounded_read import read_json_object
from harness.core.errors import UsageError
from harness.core.files import write_json
from harness.core.types.arrays import FloatArray
from harness.core.types.pruning import ModelShape
from harness.serving.roofline import Device, decode_work, engine_shape
from pruning.search.choices import LayerChoice

_FILE_BYTES = 1 << 20
_ATTENTION = 2  # of `Sizes.terms`
_SMALL = 1e-300


@dataclass(frozen=True)
class Sizes:
    """What of a model's structure decides its speed.

    Attributes:
        widths: FFN width of each layer that stays.
        vocabulary: Rows.
        skipped: How many of these layers have no attention.
    """

    widths: tuple[int, ...]
    vocabulary: int
    skipped: int = 0

    @property
    def attention(self) -> int:
        """Layers with attention."""
        return len(self.widths) - self.skipped

    @property
    def terms(self) -> tuple[int, ...]:
        """What the coefficients are multiplied with, in their order."""
        return 1, len(self.widths), self.attention, sum(self.widths), self.vocabulary


@dataclass(frozen=True)
class Costs:
    """Seconds per output token at one concurrency, each at least 0: of a token itself, and for each layer, its
    attention, FFN neuron of a layer, and row of the vocabulary.
    """

    fixed: float
    layer: float
    attention: float
    neuron: float
    row: float

    def seconds(self, sizes: Sizes) -> float:
        coefficients = (self.fixed, self.layer, self.attention, self.neuron, self.row)
        return sum(each * count for each, count in zip(coefficients, sizes.terms, strict=True))


@dataclass(frozen=True)
class Timed:
    """A structure and its seconds per output token at each concurrency."""

    name: str
    sizes: Sizes
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class CostTable:
    """Costs on one device.

    Attributes:
        device: Where they were timed, or by whose roofline they are computed.
        concurrency: Requests at a time.
        costs: At each concurrency.
        fitted: What they were fitted to, the dense model first.
        held_out: A structure that was timed and not fitted to; None of a roofline.
    """

    device: str
    concurrency: tuple[int, ...]
    costs: tuple[Costs, ...]
    fitted: tuple[Timed, ...]
    held_out: Timed | None = None

    @property
    def dense(self) -> Sizes:
        return self.fitted[0].sizes

    @property
    def error(self) -> float | None:
        """The largest relative error of the predicted time of `held_out`."""
        if self.held_out is None:
            return None
        pairs = zip(self.costs, self.held_out.seconds, strict=True)
        return max(abs(costs.seconds(self.held_out.sizes) / seconds - 1) for costs, seconds in pairs)

    def speedup(self, sizes: Sizes) -> float:
        """Over the dense model, the least over the levels of concurrency."""
        return min(costs.seconds(self.dense) / costs.seconds(sizes) for costs in self.costs)


def fit(timed: Sequence[Sizes], seconds: Sequence[float]) -> Costs:
    """The costs with the least sum of squared relative errors. seconds: per output token, above 0, one for each."""
    from scipy.optimize import nnls

    rows = np.array([sizes.terms for sizes in timed], dtype=np.float64) / np.asarray(seconds)[:, None]
    if not any(sizes.skipped for sizes in timed):
        rows[:, _ATTENTION] = 0.0  # as many as there are layers, whose cost has it then
    scale = np.maximum(rows.max(axis=0), _SMALL)  # of one size, as a token and 50,000 rows of the vocabulary are not
    found, _ = nnls(rows / scale, np.ones(len(rows)))
    return Costs(*(found / scale).tolist())


def fitted_table(device: str, concurrency: Sequence[int], timed: Sequence[Timed], held_out: Timed | None) -> CostTable:
    """The costs at every concurrency. timed: the dense model first."""
    sizes = [each.sizes for each in timed]
    costs = (fit(sizes, [each.seconds[level] for each in timed]) for level in range(len(concurrency)))
    return CostTable(device, tuple(concurrency), tuple(costs), tuple(timed), held_out)


def probe_sizes(dense: Sizes, alignment: int, attention_goes: bool) -> dict[str, Sizes]:
    """The structures to time: as many as there are costs to tell apart, and `mixed`, on which the prediction is tried,
    of layers that have different widths. attention_goes: Whether layers can lack their attention; where none can, its
    cost is that of the layer.
    """
    layers, width = len(dense.widths), dense.widths[0]
    half, quarter = (max(alignment, width // part // alignment * alignment) for part in (2, 4))
    fewer, some = dense.widths[: max(1, layers // 2)], max(1, 3 * layers // 4)
    bare = {"half the attention": replace(dense, skipped=layers // 2)} if attention_goes else {}
    mixed = tuple(quarter if i % 2 else width for i in range(some))
    return {
        "dense": dense,
        "half the FFN": replace(dense, widths=(half,) * layers),
        "half the layers": replace(dense, widths=fewer),
        "a quarter of the vocabulary": replace(dense, vocabulary=max(64, dense.vocabulary // 4 // 64 * 64)),
        **bare,
        "mixed": replace(dense, widths=mixed, skipped=some // 4 if attention_goes else 0),
    }


def roofline_table(shape: ModelShape, device: Device, concurrency: Sequence[int], context: int) -> CostTable:
    """The costs of a device that is not at hand: fitted to its roofline (`decode_work`) on the structures that would be
    timed. The device's speeds are known.
    """
    shape, sizes = engine_shape(shape), probe_sizes(sizes_of(shape), 1, attention_goes(shape))
    sizes.pop("mixed")

    def seconds(each: Sizes, level: int) -> float:
        narrowed = shape_with(shape, each)
        return (decode_work(narrowed, level, context, shape.dtype_bytes, device.count).seconds(device) or 0.0) / level

    timed = [Timed(name, each, tuple(seconds(each, level) for level in concurrency)) for name, each in sizes.items()]
    return fitted_table(device.name, concurrency, timed, None)


def attention_goes(shape: ModelShape) -> bool:
    """Whether layers of a model can lack their attention: all but the first."""
    return shape.attention_parameters > 0 and shape.num_hidden_layers > 1


def sizes_of(shape: ModelShape) -> Sizes:
    """Of a dense model, whose layers have one width."""
    return Sizes((shape.intermediate_size,) * shape.num_hidden_layers, shape.vocab_size)


def shape_with(shape: ModelShape, sizes: Sizes) -> ModelShape:
    """A dense model's shape with other sizes; of layers with different widths, intermediate_size is the largest."""
    removed, gone = shape.num_hidden_layers - len(sizes.widths), shape.vocab_size - sizes.vocabulary
    narrower = sum(shape.intermediate_size - width for width in sizes.widths)
    rows = gone * shape.hidden_size * (1 if shape.tied else 2)
    gone_attention = sizes.skipped * shape.attention_parameters
    left = shape.parameters - removed * shape.layer_parameters - narrower * shape.neuron_parameters - rows
    return replace(
        shape,
        parameters=left - gone_attention,
        num_hidden_layers=len(sizes.widths),
        skipped_attention=sizes.skipped,
        intermediate_size=max(sizes.widths),
        vocab_size=sizes.vocabulary,
    )


def layer_shares(
    table: CostTable, speedup: float, choices: Sequence[LayerChoice], vocabulary: int
) -> FloatArray | None:
    """What a layer takes, by what it becomes, of the time that all layers may take together, for a speed-up at every
    concurrency; 0 for a removed one. The sum over the layers may be 1. vocabulary: rows that stay.

    Of several concurrencies the largest share counts, so that a sum of 1 is enough at each. None where the rest of the
    model takes all the time.
    """
    shares = []
    for costs in table.costs:
        rest = costs.fixed + costs.row * vocabulary
        room = costs.seconds(table.dense) / speedup - rest
        if room <= 0:
            return None
        shares.append([_layer_seconds(costs, choice) / room for choice in choices])
    return np.asarray(np.max(shares, axis=0), dtype=np.float64)


def _layer_seconds(costs: Costs, choice: LayerChoice) -> float:
    attention = costs.attention if choice.attention else 0.0
    return 0.0 if choice.removed else costs.layer + attention + costs.neuron * choice.width


def kept(file: Path, measure: Callable[[], CostTable], fresh: bool) -> CostTable:
    """The table in a file; where there is none or it is damaged, or `fresh`, a measured one, which is kept there."""
    found = None if fresh else load(file)
    if found is None:
        found = measure()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, asdict(found))
    return found


def load(file: Path) -> CostTable | None:
    """What `kept` wrote; None where it is missing or damaged."""
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(CostTable).validate_python(read_json_object(file, _FILE_BYTES))
    except (OSError, UsageError, ValidationError):
        return None

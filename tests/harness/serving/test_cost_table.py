"""Costs of layers, neurons and rows of the vocabulary: fitted, predicted, and what of them each layer may take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.types.pruning import ModelShape
from harness.models.registry import shape
from harness.serving.cost_table import (
    Costs,
    CostTable,
    Sizes,
    Timed,
    fit,
    fitted_table,
    kept,
    layer_shares,
    probe_sizes,
    roofline_table,
    shape_with,
    sizes_of,
)
from harness.serving.roofline import decode_work, find_device
from pruning.search.choices import LayerChoice

DENSE = Sizes((1536,) * 30, 49152)
positive = st.floats(0.1, 10.0)
AMOUNTS = st.builds(
    lambda fixed, layer, attention, neuron, row: Costs(
        fixed * 1e-3, layer * 1e-4, attention * 1e-4, neuron * 1e-7, row * 1e-8
    ),
    positive,
    positive,
    positive,
    positive,
    positive,
)


@given(AMOUNTS)
def test_costs_are_found_again_from_the_times_that_they_make(costs: Costs) -> None:
    probes = [sizes for name, sizes in probe_sizes(DENSE, 128, True).items() if name != "mixed"]
    found = fit(probes, [costs.seconds(sizes) for sizes in probes])
    assert vars(found) == {name: pytest.approx(value, rel=1e-6) for name, value in vars(costs).items()}


@given(AMOUNTS, st.lists(st.floats(0.5, 2.0), min_size=5, max_size=5), st.data())
def test_no_cost_is_negative_and_less_is_never_slower_whatever_was_timed(
    costs: Costs, noise: list[float], data: st.DataObject
) -> None:
    probes = [sizes for name, sizes in probe_sizes(DENSE, 128, True).items() if name != "mixed"]
    found = fit(probes, [costs.seconds(sizes) * factor for sizes, factor in zip(probes, noise, strict=True)])
    assert min(vars(found).values()) >= 0
    widths = data.draw(st.lists(st.integers(1, 1536), min_size=2, max_size=30))
    more = Sizes(tuple(widths), data.draw(st.integers(64, 49152)))
    less = replace(more, widths=tuple(width // 2 for width in widths[1:]), skipped=data.draw(st.integers(0, 1)))
    assert 0 <= found.seconds(less) <= found.seconds(more)


def test_the_fit_minimises_relative_errors() -> None:
    """Of one structure at 1 and at 3 s: t minimises (t - 1)^2 + (t / 3 - 1)^2, so t = (1 + 1/3) / (1 + 1/9)."""
    sizes = Sizes((4,), 64)
    assert fit([sizes, sizes], [1.0, 3.0]).seconds(sizes) == pytest.approx(1.2)


def table(*costs: Costs) -> CostTable:
    timed = [
        Timed(name, sizes, tuple(each.seconds(sizes) for each in costs))
        for name, sizes in probe_sizes(DENSE, 128, True).items()
    ]
    return fitted_table("here", tuple(range(1, len(costs) + 1)), timed[:-1], timed[-1])


@given(st.lists(AMOUNTS, min_size=1, max_size=3), st.floats(1.05, 3.0), st.data())
def test_layers_that_take_no_more_than_their_shares_reach_the_speed(
    costs: list[Costs], speedup: float, data: st.DataObject
) -> None:
    found = table(*costs)
    assert found.error == pytest.approx(0, abs=1e-6)
    grid = [LayerChoice(w, a) for w, a in ((1536, True), (768, True), (768, False), (128, True), (0, False))]
    rows = data.draw(st.sampled_from((49152, 8192)))
    shares = layer_shares(found, speedup, grid, rows)
    if shares is None:
        assert any(c.fixed + c.row * rows >= c.seconds(DENSE) / speedup * (1 - 1e-6) for c in costs)
        return
    chosen = data.draw(st.lists(st.integers(0, 4), min_size=30, max_size=30))
    kept_widths = tuple(grid[i].width for i in chosen if grid[i].width)
    total, reached = sum(shares[i] for i in chosen), found.speedup(Sizes(kept_widths, rows, chosen.count(2)))
    if len(costs) == 1:
        assert (total <= 1 + 1e-9) == (reached >= speedup * (1 - 1e-9)) or total == pytest.approx(1, abs=1e-6)
    elif total <= 1:
        assert reached >= speedup * (1 - 1e-6)


def model_shape() -> ModelShape:
    return shape("tiny-math", "math")


def test_a_shape_with_other_sizes_has_the_parameters_of_such_a_model() -> None:
    whole = model_shape()
    assert shape_with(whole, sizes_of(whole)) == whole
    layers, width = whole.num_hidden_layers, whole.intermediate_size
    less = shape_with(whole, Sizes((width // 2,) * (layers - 1), whole.vocab_size - 64))
    layer = whole.layer_parameters - whole.neuron_parameters * (width - width // 2)
    body = whole.parameters - layers * whole.layer_parameters
    tables = 1 if whole.tied else 2
    assert less.parameters == body - 64 * tables * whole.hidden_size + (layers - 1) * layer
    assert less.kv_bytes_per_token == whole.kv_bytes_per_token * (layers - 1) // layers


def test_where_no_attention_goes_a_layer_costs_what_both_do() -> None:
    costs = Costs(1e-3, 2e-4, 3e-4, 1e-7, 1e-8)
    probes = [sizes for name, sizes in probe_sizes(DENSE, 128, False).items() if name != "mixed"]
    found = fit(probes, [costs.seconds(sizes) for sizes in probes])
    assert (found.layer, found.attention) == (pytest.approx(5e-4), 0)


@pytest.mark.parametrize("level", [1, 64])
def test_a_roofline_is_linear_in_the_structure(level: int) -> None:
    """So that the fitted costs predict it for other structures, as long as the same thing limits it."""
    whole, device = model_shape(), find_device("A100-80")
    found = roofline_table(whole, device, (level,), 512)
    sizes = Sizes((whole.intermediate_size, whole.intermediate_size // 4), whole.vocab_size, skipped=1)
    narrowed = shape_with(whole, sizes)
    before, after = (decode_work(each, level, 512, whole.dtype_bytes).seconds(device) for each in (whole, narrowed))
    assert before and after and found.speedup(sizes) == pytest.approx(before / after, rel=1e-6)
    assert found.error is None


def test_a_table_is_measured_once_and_again_where_it_is_fresh_or_damaged(tmp_path: Path) -> None:
    file, calls = tmp_path / "costs" / "key.json", []

    def measure() -> CostTable:
        calls.append(1)
        return table(Costs(1e-3 * len(calls), 1e-4, 1e-4, 1e-7, 1e-8))

    first = kept(file, measure, fresh=False)
    assert kept(file, measure, fresh=False) == first and len(calls) == 1
    assert kept(file, measure, fresh=True) != first and len(calls) == 2
    file.write_text("{}")
    assert kept(file, measure, fresh=False).costs[0].fixed == pytest.approx(3e-3)

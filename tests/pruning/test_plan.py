from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.types import NeuronScores
from pruning.plan import METHODS, default_alignment, load_plan, make_plan, pruned_width, save_plan

PAPER = {
    18944: [(0.05405, 17920), (0.10135, 17024), (0.1554, 16000), (0.2027, 15104), (0.25, 14208), (0.30405, 13184), (0.35135, 12288)],
    8960: [(0.0571, 8448), (0.10, 8064), (0.1571, 7552), (0.20, 7168), (0.2571, 6656), (0.30, 6272), (0.3571, 5760)],
}


def scores(width: int = 40, seed: int = 0) -> NeuronScores:
    table = np.random.default_rng(seed).standard_normal((3, width)).astype(np.float32)
    return NeuronScores({"smd": table, "rms": table**2}, "m", "weights", "both", "calibration", "file")


@pytest.mark.parametrize(("size", "ratio", "width"), [(size, r, w) for size, rows in PAPER.items() for r, w in rows])
def test_the_papers_ratios_give_the_papers_widths(size: int, ratio: float, width: int) -> None:
    """The paper prints rounded percentages, so its width may lie half a unit of the last digit away."""
    nearest = round((1 - ratio) * size / 128) * 128
    assert nearest == width
    assert pruned_width(size, 1 - width / size, 128) == width


def test_twenty_percent_of_7b() -> None:
    assert pruned_width(18944, 0.2, default_alignment(18944)) == 15104


@given(st.integers(1, 20000), st.floats(0, 1, exclude_max=True), st.integers(1, 256))
def test_widths_are_aligned_and_never_larger_than_asked(size: int, ratio: float, alignment: int) -> None:
    assume(ratio == 0 or round((1 - ratio) * size, 6) >= alignment)
    width = pruned_width(size, ratio, alignment)
    assert 1 <= width <= size
    if ratio > 0:
        assert width % alignment == 0
        assert width <= (1 - ratio) * size + 1e-5 < width + alignment + 1e-5


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2, float("nan")])
def test_a_ratio_outside_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match=r"outside \[0, 1\)"):
        pruned_width(100, ratio, 1)


def test_a_ratio_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves no neuron"):
        pruned_width(100, 0.99, 16)


@given(st.sampled_from(METHODS), st.floats(0, 0.9), st.integers(0, 5), st.integers(0, 100))
def test_plans_are_sorted_unique_and_deterministic(method: str, ratio: float, seed: int, data: int) -> None:
    metric = None if method == "random" else "smd"
    plan = make_plan(scores(seed=data), ratio, method, metric, seed, 1)  # type: ignore[arg-type]
    again = make_plan(scores(seed=data), ratio, method, metric, seed, 1)  # type: ignore[arg-type]
    for keep, same in zip(plan.keep, again.keep, strict=True):
        assert keep.dtype == np.int32
        assert (np.diff(keep) > 0).all()
        assert 0 <= keep[0] <= keep[-1] < 40
        np.testing.assert_array_equal(keep, same)


def test_selective_removes_the_lowest_and_reverse_the_highest() -> None:
    table = scores().scores["smd"]
    selective = make_plan(scores(), 0.25, "selective", "smd", 0, 1)
    reverse = make_plan(scores(), 0.25, "reverse", "smd", 0, 1)
    for layer in range(3):
        assert set(selective.keep[layer]) == set(np.argsort(table[layer])[10:])
        assert set(reverse.keep[layer]) == set(np.argsort(table[layer])[:30])


def test_random_depends_on_seed_and_layer_and_not_on_scores() -> None:
    a, b = (make_plan(scores(seed=s), 0.5, "random", None, 7, 1) for s in (0, 1))
    other = make_plan(scores(), 0.5, "random", None, 8, 1)
    assert all((x == y).all() for x, y in zip(a.keep, b.keep, strict=True))
    assert not (a.keep[0] == a.keep[1]).all()
    assert not (a.keep[0] == other.keep[0]).all()


def test_equal_scores_fall_to_the_lower_index() -> None:
    flat = NeuronScores({"smd": np.zeros((1, 10), np.float32)}, "m", "weights", "both", "c", "f")
    assert make_plan(flat, 0.5, "selective", "smd", 0, 1).keep[0].tolist() == [0, 1, 2, 3, 4]


def test_a_plan_comes_back_from_its_file_and_has_one_form(tmp_path: Path) -> None:
    plan = make_plan(scores(), 0.3, "reverse", "smd", 3, 4)
    for name in ("a", "b"):
        save_plan(plan, tmp_path / name)
    loaded = load_plan(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert all((x == y).all() for x, y in zip(plan.keep, loaded.keep, strict=True))
    assert {k: v for k, v in vars(plan).items() if k != "keep"} == {k: v for k, v in vars(loaded).items() if k != "keep"}


def test_a_metric_that_was_not_scored_and_a_damaged_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not 'auroc'"):
        make_plan(scores(), 0.3, "selective", "auroc", 0, 1)
    plan = make_plan(scores(), 0.3, "selective", "smd", 0, 1)
    plan.keep[0][:2] = plan.keep[0][1], plan.keep[0][0]
    save_plan(plan, tmp_path / "bad")
    with pytest.raises(UsageError, match="not sorted"):
        load_plan(tmp_path / "bad")

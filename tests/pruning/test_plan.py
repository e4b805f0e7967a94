from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from harness.core.types.calibration import CalibrationSet
from harness.core.types.pruning import Method, NeuronScores, PruningPlan
from pruning import score_file
from pruning.plan import PlanRequest, choose_metric, default_alignment, global_widths, pruned_width, removal_order
from pruning.plan import make_plan as make
from pruning.plan_file import load_plan, save_plan
from pruning.scores import score
from tests.support.activations import random_stats

PAPER = {
    18944: [
        (0.05405, 17920),
        (0.10135, 17024),
        (0.1554, 16000),
        (0.2027, 15104),
        (0.25, 14208),
        (0.30405, 13184),
        (0.35135, 12288),
    ],
    8960: [(0.0571, 8448), (0.10, 8064), (0.1571, 7552), (0.20, 7168), (0.2571, 6656), (0.30, 6272), (0.3571, 5760)],
}


def scores(width: int = 40, seed: int = 0) -> NeuronScores:
    table = np.random.default_rng(seed).standard_normal((3, width)).astype(np.float32)
    return NeuronScores(
        scores={"smd": table, "rms": table**2, "contrib": np.abs(table)},
        model="m",
        model_hash="weights",
        tokens="all",
        calibration_hash="calibration",
        file_hash="file",
    )


def make_plan(
    table: NeuronScores, ratio: float, method: Method, metric: str | None, seed: int, alignment: int, **more: object
) -> PruningPlan:
    return make(table, PlanRequest(ratio=ratio, method=method, metric=metric, seed=seed, alignment=alignment, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "ratio", "width"), [(size, r, w) for size, rows in PAPER.items() for r, w in rows])
def test_the_papers_ratios_give_the_papers_widths(size: int, ratio: float, width: int) -> None:
    """The paper prints rounded percentages, so its width may lie half a unit of the last digit away."""
    assert pruned_width(size, ratio, 128) == width
    assert pruned_width(size, 1 - width / size, 128) == width


def test_twenty_percent_of_7b() -> None:
    assert pruned_width(18944, 0.2, default_alignment(18944)) == 15104


@given(st.integers(1, 20000), st.floats(0, 1, exclude_max=True), st.integers(1, 256))
def test_no_aligned_width_that_removes_something_is_nearer(size: int, ratio: float, alignment: int) -> None:
    assume(ratio == 0 or (alignment < size and round((1 - ratio) * size, 6) >= alignment))
    width = pruned_width(size, ratio, alignment)
    if ratio == 0:
        assert width == size
        return
    away = {other: abs(other - (1 - ratio) * size) for other in range(alignment, size, alignment)}
    assert away[width] <= min(away.values()) + 1e-5


def test_of_two_widths_as_near_the_larger_is_taken() -> None:
    """2.5 % of 512 lies between 512 - 8 and 512 - 16 at alignment 8, and 20 % of 1536 below 10 times 128."""
    assert pruned_width(64, 0.1875, 8) == 56
    assert pruned_width(1536, 0.2, 128) == 1280 and pruned_width(1536, 0.15, 128) == 1280
    assert pruned_width(1536, 0.1, 128) == 1408, "not 1280, which lies farther away"


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 2, float("nan")])
def test_a_ratio_outside_is_refused(ratio: float) -> None:
    with pytest.raises(UsageError, match=r"outside \[0, 1\)"):
        pruned_width(100, ratio, 1)


def test_a_ratio_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves no neuron"):
        pruned_width(100, 0.99, 16)


@given(st.sampled_from(["selective", "random", "reverse"]), st.floats(0, 0.9), st.integers(0, 5), st.integers(0, 100))
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
    flat = NeuronScores(
        scores={"smd": np.zeros((1, 10), np.float32)},
        model="m",
        model_hash="weights",
        tokens="all",
        calibration_hash="c",
        file_hash="f",
    )
    assert make_plan(flat, 0.5, "selective", "smd", 0, 1).keep[0].tolist() == [0, 1, 2, 3, 4]


def test_a_plan_comes_back_from_its_file_and_has_one_form(tmp_path: Path) -> None:
    plan = make_plan(scores(), 0.3, "reverse", "smd", 3, 4)
    for name in ("a", "b"):
        save_plan(plan, tmp_path / name)
    loaded = load_plan(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert all((x == y).all() for x, y in zip(plan.keep, loaded.keep, strict=True))
    assert {k: v for k, v in vars(plan).items() if k not in ("keep", "path")} == {
        k: v for k, v in vars(loaded).items() if k not in ("keep", "path")
    }


def test_a_metric_that_was_not_scored_and_a_damaged_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not 'auroc'"):
        make_plan(scores(), 0.3, "selective", "auroc", 0, 1)
    plan = make_plan(scores(), 0.3, "selective", "smd", 0, 1)
    plan.keep[0][:2] = plan.keep[0][1], plan.keep[0][0]
    save_plan(plan, tmp_path / "bad")
    with pytest.raises(UsageError, match="not sorted"):
        load_plan(tmp_path / "bad")


@pytest.mark.parametrize(("alignment", "ratio"), [(1, 0.3), (4, 0.5), (8, 0.4)])
@pytest.mark.parametrize("metric", ["smd", "rms"])
def test_global_widths_sum_to_the_uniform_total(alignment: int, ratio: float, metric: str) -> None:
    plan = make_plan(scores(width=64), ratio, "selective", metric, 0, alignment, allocation="global")
    uniform = pruned_width(64, ratio, alignment)
    assert sum(plan.widths) == 3 * uniform
    assert all(width % alignment == 0 and 8 <= width <= 64 for width in plan.widths)


def test_a_global_ranking_of_a_unit_free_metric_is_one_threshold() -> None:
    """Without alignment and where no floor binds, the kept neurons are the best of all layers together."""
    table = scores(width=64)
    plan = make_plan(table, 0.25, "selective", "smd", 0, 1, allocation="global")
    threshold = np.sort(table.scores["smd"].ravel())[::-1][sum(plan.widths) - 1]
    for layer, keep in enumerate(plan.keep):
        assert set(keep) == set(np.flatnonzero(table.scores["smd"][layer] >= threshold))


@given(st.integers(1, 4), st.integers(1, 8), st.integers(8, 60), st.integers(0, 100))
def test_global_widths_keep_floor_ceiling_and_alignment(layers: int, alignment: int, size: int, seed: int) -> None:
    assume(0.7 * size >= alignment)
    table = np.random.default_rng(seed).standard_normal((layers, size)) * np.arange(1, layers + 1)[:, None]
    total = layers * pruned_width(size, 0.3, alignment)
    floor = -(-max(size // 8, 1) // alignment) * alignment
    widths = global_widths(table, total, alignment)
    assert sum(widths) <= total < sum(widths) + alignment * layers
    assert all(floor <= width <= size and width % alignment == 0 for width in widths)


def test_protected_neurons_stay_whatever_the_method() -> None:
    table = scores()
    best = {int(i) for i in np.argsort(-table.scores["contrib"][1])[:4]}
    for method, metric in (("selective", "smd"), ("reverse", "smd"), ("random", None)):
        kept = set(make_plan(table, 0.8, method, metric, 0, 1, protect=0.1).keep[1].tolist())  # type: ignore[arg-type]
        assert best <= kept
    assert not best <= set(make_plan(table, 0.8, "reverse", "smd", 0, 1).keep[1].tolist())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"protect": 0.9}, "protect 0.9 keeps more"),
        ({"min_width": 39}, "--min-width 39"),
        ({"protect": 1.0}, r"outside \[0, 1\)"),
    ],
)
def test_impossible_wishes_are_refused(more: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_plan(scores(), 0.5, "selective", "smd", 0, 1, **more)


def test_widths_that_were_found_are_kept_by_rank() -> None:
    request = PlanRequest(0.5, metric="rms", allocation="search", compensated=True, protect=0.1)
    plan, order = make(scores(), request, [10, 20, 30]), removal_order(scores(), request)
    assert plan.widths == (10, 20, 30) and plan.allocation == "search"
    assert [sorted(row[: len(keep)]) for row, keep in zip(order, plan.keep, strict=True)] == [
        keep.tolist() for keep in plan.keep
    ]
    best = np.argsort(-scores().scores["contrib"], axis=1)[:, :4]
    assert all(set(row) <= set(keep.tolist()) for row, keep in zip(best, plan.keep, strict=True))
    for wrong in (None, [10, 20], [10, 20, 41], [0, 20, 40]):
        with pytest.raises(UsageError, match="widths that were found"):
            make(scores(), request, wrong)


def test_a_random_choice_has_no_global_ranking() -> None:
    with pytest.raises(UsageError, match="random choice has no ranking"):
        make_plan(scores(), 0.5, "random", None, 0, 1, allocation="global")


@pytest.mark.parametrize(
    ("method", "metric", "compensate", "expected"),
    [
        ("selective", None, None, ("obs", True)),
        ("selective", "best", False, ("obs", False)),
        ("selective", "rms", None, ("rms", False)),
        ("selective", "rms", True, ("rms", True)),
        ("reverse", None, None, ("smd", False)),
        ("random", "rms", None, (None, False)),
    ],
)
def test_the_metric_that_a_method_means(
    method: Method, metric: str | None, compensate: bool | None, expected: tuple[str, bool]
) -> None:
    assert choose_metric(method, metric, compensate) == expected


def test_plans_of_the_same_scores_are_byte_equal_whatever_the_file_is_called(tmp_path: Path) -> None:
    stats = random_stats()
    calibration = CalibrationSet(
        model="m", model_hash="weights", target_source="t", distractor_sources=("d",), tokens="all", items=()
    )
    for name in ("a", "b"):
        score_file.save(stats, score(stats), calibration, 0.0, tmp_path / f"{name}.safetensors")
        request = PlanRequest(0.4, metric="rms")
        save_plan(make(score_file.load(tmp_path / f"{name}.safetensors"), request), tmp_path / f"{name}.plan")
    assert (tmp_path / "a.plan").read_bytes() == (tmp_path / "b.plan").read_bytes()


def test_a_plan_says_how_its_columns_were_fitted(tmp_path: Path) -> None:
    """Two plans that keep the same neurons and are re-fitted otherwise are two plans: their columns are not
    interchangeable.
    """
    scores = NeuronScores(
        scores={"rms": np.arange(8.0)[None]},
        model="m",
        model_hash="w",
        tokens="all",
        calibration_hash="c",
        general_weight=0.25,
    )
    plans = [
        make(scores, PlanRequest(0.5, metric="rms", compensated=True, sequential=sequential))
        for sequential in (False, True)
    ]
    for number, plan in enumerate(plans):
        save_plan(plan, tmp_path / str(number))
        assert load_plan(tmp_path / str(number)).sequential is plan.sequential and plan.general_weight == 0.25
    assert (tmp_path / "0").read_bytes() != (tmp_path / "1").read_bytes()
    with pytest.raises(UsageError, match="nothing is re-fitted"):
        make(scores, PlanRequest(0.5, metric="rms", sequential=True))


def layers_of_other_scale(metric: str) -> tuple[NeuronScores, NeuronScores]:
    """The same scores, and once more with every layer in a unit of its own."""
    table = np.random.default_rng(5).gamma(2.0, 1.0, (3, 64)).astype(np.float32)
    scaled = table * np.array([[1.0], [1000.0], [0.01]], np.float32) + np.array([[0.0], [7.0], [1.0]], np.float32)
    return tuple(  # type: ignore[return-value]
        NeuronScores(
            scores={metric: values}, model="m", model_hash="w", tokens="all", calibration_hash="c", file_hash="f"
        )
        for values in (table, scaled)
    )


def test_a_layers_unit_does_not_decide_how_many_of_its_neurons_stay() -> None:
    """RMS has the unit of what a layer writes: layers are put on one scale before they are ranked together."""
    plain, scaled = layers_of_other_scale("rms")
    widths = [make_plan(table, 0.5, "selective", "rms", 0, 1, allocation="global").widths for table in (plain, scaled)]
    assert widths[0] == widths[1] and min(widths[0]) > 20


def test_the_unit_free_metric_is_ranked_as_it_is() -> None:
    """S has no unit: a layer whose neurons all score higher keeps more of them."""
    _, scaled = layers_of_other_scale("smd")
    first, second, third = make_plan(scaled, 0.5, "selective", "smd", 0, 1, allocation="global").widths
    assert second == 64 and first + third == 32


def test_standardised_layers_are_ranked_by_standard_deviations_above_their_mean() -> None:
    """FLAP's scale, (score - mean) / standard deviation of the layer; no floor binds and nothing is aligned."""
    table, _ = layers_of_other_scale("rms")
    values = table.scores["rms"].astype(np.float64)
    standard = (values - values.mean(axis=1, keepdims=True)) / values.std(axis=1, keepdims=True)
    plan = make_plan(table, 0.5, "selective", "rms", 0, 1, allocation="global")
    best = np.sort(np.argsort(-standard.ravel(), kind="stable")[: 3 * 32])
    assert [layer * 64 + int(i) for layer, keep in enumerate(plan.keep) for i in keep] == best.tolist()

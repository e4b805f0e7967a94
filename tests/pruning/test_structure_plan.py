"""Plans of KV groups and blocks: which go, and what their file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness.core.errors import UsageError
from harness.core.types.pruning import NeuronScores, PruningPlan
from pruning.plan import PlanRequest, choose_metric, make_plan
from pruning.plan_file import load_plan, save_plan
from pruning.record import plan_hash
from pruning.structure_plan import structure_text

OLD = Path(__file__).parents[1] / "golden" / "neuron-plan.safetensors"  # written before plans had structures


def scores(table: list[list[float]], structure: str) -> NeuronScores:
    return NeuronScores(
        scores={"rms": np.array(table, np.float32)},
        model="m",
        model_hash="weights",
        tokens="all",
        calibration_hash="calibration",
        structure=structure,  # type: ignore[arg-type]
        intermediate_size=24,
    )


def planned(
    table: list[list[float]], structure: str, ratio: float, method: str = "selective", **more: object
) -> PruningPlan:
    request = PlanRequest(ratio, method=method, metric="rms", structure=structure, **more)  # type: ignore[arg-type]
    return make_plan(scores(table, structure), request)


def test_a_plan_from_before_there_were_structures_is_valid_and_has_the_same_bytes(tmp_path: Path) -> None:
    plan = load_plan(OLD)
    assert (plan.structure, plan.kv_keep, plan.skip_attention, plan.skip_ffn) == ("neuron", (), (), ())
    assert [keep.tolist() for keep in plan.keep][1] == [0, 2, 3, 5, 8, 11]
    assert plan_hash(plan) == "83af158dd361cc9a"  # as the version that wrote it computed it
    save_plan(plan, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == OLD.read_bytes()


def test_the_lowest_groups_of_every_layer_go_and_in_reverse_the_highest() -> None:
    table = [[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    plan = planned(table, "kv_group", 1 / 3)
    assert [groups.tolist() for groups in plan.kv_keep] == [[0, 2], [1, 2]]
    assert (plan.num_key_value_heads, plan.widths, plan.intermediate_size) == (3, (24, 24), 24)
    reverse = planned(table, "kv_group", 1 / 3, "reverse")
    assert [groups.tolist() for groups in reverse.kv_keep] == [[1, 2], [0, 1]]
    assert structure_text(plan) == "KV groups 3 -> 2"


def test_random_groups_differ_by_seed_and_layer_and_not_by_score() -> None:
    """Of 64 layers with 8 groups, half of them random: no two seeds agree, and the scores do not matter."""
    table = np.random.default_rng(0).random((64, 8)).tolist()
    kept = [
        [groups.tolist() for groups in planned(values, "kv_group", 0.5, "random", seed=seed).kv_keep]
        for values, seed in ((table, 0), (table, 1), (table[::-1], 0))
    ]
    assert kept[0] == kept[2] != kept[1] and len({tuple(groups) for groups in kept[0]}) > 10


@pytest.mark.parametrize(
    ("structure", "attention", "ffn"), [("attention", (2, 3), ()), ("ffn", (), (0, 3)), ("layer", (0, 3), (0, 3))]
)
def test_blocks_are_ranked_over_all_layers(structure: str, attention: tuple[int, ...], ffn: tuple[int, ...]) -> None:
    """The first layer keeps its attention, whatever it is worth."""
    plan = planned([[1.0], [4.0], [3.0], [2.0]], structure, 0.5)
    assert (plan.skip_attention, plan.skip_ffn, plan.kv_keep) == (attention, ffn, ())
    assert planned([[1.0], [4.0], [3.0], [2.0]], structure, 0.1, "reverse").skip_ffn == ((1,) if ffn else ())


@given(st.data())
def test_a_plan_is_what_its_file_says(data: st.DataObject) -> None:
    import tempfile

    groups = data.draw(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=4, max_size=4))
    skips = [data.draw(st.sets(st.integers(0, 3))) for _ in range(2)]
    if len(skips[0] & skips[1]) == 4:
        skips[1].pop()
    plan = replace(
        planned([[1.0], [2.0], [3.0], [4.0]], "layer", 0.25),
        kv_keep=tuple(np.array(sorted(each), np.int32) for each in groups),
        num_key_value_heads=5,
        skip_attention=tuple(sorted(skips[0])),
        skip_ffn=tuple(sorted(skips[1])),
    )
    with tempfile.TemporaryDirectory() as folder:
        save_plan(plan, Path(folder) / "plan")
        found = load_plan(Path(folder) / "plan")
    assert [each.tolist() for each in found.kv_keep] == [each.tolist() for each in plan.kv_keep]
    fields = ("structure", "num_key_value_heads", "skip_attention", "skip_ffn", "widths", "intermediate_size")
    assert [getattr(found, name) for name in fields] == [getattr(plan, name) for name in fields]
    assert plan_hash(found) == plan_hash(plan)


@pytest.mark.parametrize(
    ("name", "array", "told"),
    [
        ("layers.1.kv_keep", np.array([0, 3], np.int32), "not sorted, unique and below 3"),
        ("layers.1.kv_keep", None, "it has no layers.1.kv_keep"),
        ("layers.0.skip_ffn", np.array([2], np.uint8), "a single 1"),
        ("layers.7.skip_ffn", np.ones(1, np.uint8), "layers.7.skip_ffn and is for 2 layers"),
    ],
)
def test_a_damaged_plan_is_refused(name: str, array: np.ndarray | None, told: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    save_plan(planned([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], "kv_group", 1 / 3), tmp_path / "plan")
    with safe_open(tmp_path / "plan", "np") as file:
        meta = file.metadata()
    arrays = load_file(tmp_path / "plan") | ({} if array is None else {name: array})
    save_file(
        {key: value for key, value in arrays.items() if array is not None or key != name}, tmp_path / "plan", meta
    )
    with pytest.raises(UsageError, match=told):
        load_plan(tmp_path / "plan")


def test_requests_that_cannot_be_planned_are_refused() -> None:
    three = [[1.0, 2.0, 3.0]] * 2
    with pytest.raises(UsageError, match="leaves no KV group of 3"):
        planned(three, "kv_group", 0.9)
    with pytest.raises(UsageError, match="leaves no block of 2"):
        planned([[1.0], [2.0]], "layer", 0.9)
    with pytest.raises(UsageError, match="score again with --structure kv_group"):
        make_plan(scores(three, "neuron"), PlanRequest(0.5, metric="rms", structure="kv_group"))
    for metric in ("lape", "taylor", "wifv"):
        with pytest.raises(UsageError, match=f"{metric} cannot score a KV group"):
            choose_metric("selective", metric, None, "kv_group")
    with pytest.raises(UsageError, match="nothing is re-fitted"):
        choose_metric("selective", "rms", True, "layer")
    assert choose_metric("selective", None, None, "kv_group") == ("obs", True)
    assert choose_metric("selective", None, None, "layer") == ("rms", False)

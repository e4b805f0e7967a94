"""An elastic folder is the dense model, and each of its widths is the export of that width."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness.core.errors import HarnessError, UnsupportedModelError, UsageError
from harness.core.types.pruning import Method, NeuronScores
from pruning.checkpoint import open_model
from pruning.elastic import ORDER, Order, check_elastic, load_order, narrowed, order_of, write_elastic
from pruning.export import PLAN_COPY, export
from pruning.families import FAMILIES
from pruning.plan import PlanRequest, make_plan, removal_order
from pruning.plan_file import load_plan, save_plan
from tests.support.models import build_model, plain
from tests.support.pruned import plan_for

SIZE = 96
FUSED = ("phi3",)


def scores_of(model: Path, seed: int = 0, size: int = SIZE) -> NeuronScores:
    """Random scores, many of them equal."""
    table = np.random.default_rng(seed).integers(0, 40, (3, size)).astype(np.float32)
    return NeuronScores({"smd": table}, str(model), open_model(model).fingerprint, "all", "calibration", "scores")


def order_for(model: Path, method: Method = "selective", size: int = SIZE) -> Order:
    return order_of(scores_of(model, size=size), PlanRequest(0.0, method, "smd", 7, 16))


@given(
    table=st.lists(st.lists(st.integers(-3, 3), min_size=24, max_size=24), min_size=1, max_size=3),
    method=st.sampled_from(["selective", "reverse", "random"]),
    width=st.integers(1, 23),
    seed=st.integers(0, 5),
)
def test_the_first_neurons_of_the_order_are_those_of_a_plan(
    table: list[list[int]], method: Method, width: int, seed: int
) -> None:
    scores = NeuronScores({"smd": np.array(table, np.float32)}, "m", "h", "all", "c")
    order = removal_order(scores, PlanRequest(0.0, method, "smd", seed))
    plan = make_plan(scores, PlanRequest(1 - width / 24, method, "smd", seed))
    assert [sorted(neurons[:width]) for neurons in order] == [keep.tolist() for keep in plan.keep]
    assert all(sorted(neurons) == list(range(24)) for neurons in order)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["selective", "reverse", "random"])
def test_a_slice_is_the_export_of_its_width(method: Method, random_model: Path, tmp_path: Path) -> None:
    dense, order = open_model(random_model), order_for(random_model, method)
    made = write_elastic(dense, order, tmp_path / "elastic")
    for width in (96, 60, 33, 1):
        request = PlanRequest(round(1 - width / SIZE, 9), method, None if method == "random" else "smd", 7)
        plan = make_plan(scores_of(random_model), request)
        save_plan(plan, tmp_path / "plan.safetensors")
        wanted = export(dense, plan, tmp_path / f"export-{width}", tmp_path / "plan.safetensors").path
        found = narrowed(made, width, tmp_path / f"slice-{width}").path
        same = sorted(file.relative_to(wanted).as_posix() for file in wanted.rglob("*") if file.is_file())
        assert same == sorted(file.relative_to(found).as_posix() for file in found.rglob("*") if file.is_file())
        assert len([name for name in same if name.endswith(".safetensors")]) > 2, "several shards, and the plan"
        own = {"README.md", ".written.json"}  # the card's title is of another folder
        assert all((wanted / name).read_bytes() == (found / name).read_bytes() for name in same if name not in own)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "opt"])  # gated; transposed, with biases; no gate
def test_the_full_width_is_the_dense_model(model_type: str, tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "dense")
    made = write_elastic(open_model(folder), order_for(folder), tmp_path / "elastic")
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before, after = (plain(path, dtype=torch.float32)(ids).logits for path in (folder, made.path))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-4)
    changed = [
        name
        for name, tensor in load_file(folder / "model.safetensors").items()
        if not np.array_equal(tensor, load_file(made.path / "model.safetensors")[name])
    ]
    assert changed and all(FAMILIES[model_type].tensor(name) for name in changed)
    wanted = export(open_model(folder), order_for(folder).plan(40), tmp_path / "export")
    assert (narrowed(made, 40, tmp_path / "slice").path / "model.safetensors").read_bytes() == (
        wanted.path / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_family_of_which_leading_rows_are_no_neurons_is_refused(name: str) -> None:
    family = FAMILIES[name]
    if name in FUSED or family.tower:
        with pytest.raises(UnsupportedModelError, match=rf"^{name} (stores|is a vision).*harness prune"):
            check_elastic(family)
    else:
        check_elastic(family)


@pytest.mark.slow
def test_a_pruned_model_made_elastic_keeps_its_steps(random_model: Path, tmp_path: Path) -> None:
    plan = plan_for(random_model, width=72)
    save_plan(plan, tmp_path / "first.safetensors")
    once = export(open_model(random_model), plan, tmp_path / "once", tmp_path / "first.safetensors")
    made = write_elastic(once, order_for(once.path, size=72), tmp_path / "elastic")
    assert made.record == once.record
    found = narrowed(made, 40, tmp_path / "slice")
    assert found.record and [step["widths"][0] for step in found.record["steps"]] == [72, 40]
    assert (found.path / "pruning" / "plan-1.safetensors").read_bytes() == (tmp_path / "first.safetensors").read_bytes()
    assert load_plan(found.path / PLAN_COPY).widths == (40, 40, 40)
    assert "2 steps, FFN width 96 -> 40" in (found.path / "README.md").read_text()


@pytest.mark.slow
def test_what_cannot_be_made_is_refused(random_model: Path, tmp_path: Path) -> None:
    dense, order = open_model(random_model), order_for(random_model)
    with pytest.raises(UsageError, match="has other weights; score it first"):
        write_elastic(dense, replace(order, model_hash="other"), tmp_path / "elastic")
    with pytest.raises(UsageError, match="is the model itself"):
        write_elastic(dense, order, random_model)
    with pytest.raises(UsageError, match="matched keeps other neurons at each width"):
        order_for(random_model, "matched")
    with pytest.raises(UsageError, match="is no elastic folder"):
        narrowed(dense, 40, tmp_path / "slice")
    assert list(tmp_path.iterdir()) == []
    made = write_elastic(dense, order, tmp_path / "elastic")
    for width in (0, -1, 97):
        with pytest.raises(UsageError, match=f"widths from 1 to 96, not {width}"):
            narrowed(made, width, tmp_path / "slice")
    with pytest.raises(UsageError, match="is the elastic folder itself"):
        narrowed(made, 40, made.path)
    (made.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes\.txt"):
        write_elastic(dense, order, made.path)


@pytest.mark.slow
def test_an_order_that_is_none_is_refused(random_model: Path, tmp_path: Path) -> None:
    made = write_elastic(open_model(random_model), order_for(random_model), tmp_path / "elastic")
    file = made.path / ORDER
    good = file.read_bytes()
    arrays, meta = dict(load_file(file)), {**made_metadata(file)}
    twice = arrays["layers.1.order"].copy()
    twice[0] = twice[1]
    damaged = [
        ({**arrays, "layers.1.order": twice}, meta),
        ({**arrays, "layers.1.order": twice.astype(np.float32)}, meta),
        ({"layers.0.order": arrays["layers.0.order"]}, meta),
        (arrays, {**meta, "method": "matched"}),
        (arrays, {**meta, "intermediate_size": "95"}),
        (arrays, {**meta, "layers": "2"}),
    ]
    for tensors, metadata in damaged:
        save_file(tensors, file, metadata)
        with pytest.raises(UsageError, match=r"order\.safetensors is (damaged|not the order).*harness elastic"):
            load_order(made)
    file.write_bytes(b"no tensors")
    with pytest.raises(HarnessError, match="harness elastic"):
        load_order(made)
    file.write_bytes(good)
    shutil.copytree(made.path, tmp_path / "moved")
    assert load_order(open_model(tmp_path / "moved")).widths == (16, 32, 48, 64, 80, 96)


def made_metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        return dict(opened.metadata())


def test_scores_of_another_structure_are_refused(random_model: Path) -> None:
    scores = replace(scores_of(random_model), structure="kv_group")
    with pytest.raises(UsageError, match="the scores are of each kv_group"):
        order_of(scores, PlanRequest(0.0, "selective", "smd", 7, 16))

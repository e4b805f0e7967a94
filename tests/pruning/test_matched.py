"""Controls of matched contribution, against a plain search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import UsageError
from pruning.matched import matched_keep
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import load_plan, save_plan
from tests.pruning.test_plan import scores


def plainly(kept: list[int], contribution: list[float]) -> list[int]:
    removed = sorted(set(range(len(contribution))) - set(kept), key=lambda j: (-contribution[j], j))
    left = sorted(kept)
    for j in removed:
        left.remove(min(left, key=lambda k: (abs(contribution[k] - contribution[j]), k)))
    return sorted([*left, *removed])


@given(st.permutations(range(20)), st.lists(st.floats(0, 10), min_size=20, max_size=20), st.integers(10, 20))
def test_each_removed_neuron_has_its_nearest_as_control(order: list[int], contribution: list[float], stay: int) -> None:
    kept = sorted(order[:stay])
    found = matched_keep(np.array(kept, dtype=np.int32), np.array(contribution))
    assert found.tolist() == plainly(kept, contribution) and len(found) == len(kept)


def test_a_matched_plan_removes_none_of_what_reverse_removes() -> None:
    table = scores()
    reverse, matched = (
        make_plan(table, PlanRequest(ratio=0.3, method=method, metric="smd")) for method in ("reverse", "matched")
    )
    assert reverse.widths == matched.widths and matched.method == "matched"
    for layer, (theirs, ours) in enumerate(zip(reverse.keep, matched.keep, strict=True)):
        gone = [set(range(40)) - set(keep.tolist()) for keep in (theirs, ours)]
        assert not gone[0] & gone[1]
        size = table.scores["contrib"][layer]
        far = abs(size[list(gone[0])].mean() - size[list(gone[1])].mean())
        assert far < abs(size[list(gone[0])].mean() - size.mean()), "nearer than any neurons"


def test_a_matched_plan_is_kept_and_read(tmp_path: object) -> None:
    made = make_plan(scores(), PlanRequest(ratio=0.3, method="matched", metric="smd"))
    file = tmp_path / "plan.safetensors"  # type: ignore[operator]
    save_plan(made, file)
    assert [k.tolist() for k in load_plan(file).keep] == [k.tolist() for k in made.keep]


def test_more_than_half_has_no_match() -> None:
    with pytest.raises(UsageError, match=r"over 0\.5"):
        make_plan(scores(), PlanRequest(ratio=0.6, method="matched", metric="smd"))
    with pytest.raises(UsageError, match=r"at most 0\.5"):
        matched_keep(np.array([0], dtype=np.int32), np.ones(3))
    without = replace(scores(), scores={"smd": scores().scores["smd"]})
    with pytest.raises(UsageError, match="--metric contrib"):
        make_plan(without, PlanRequest(ratio=0.3, method="matched", metric="smd"))

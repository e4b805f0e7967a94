"""`harness compare` on run directories as a run leaves them: paired by item, refused where the two are not the same
test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import UsageError
from harness.core.statistics import holm, paired_difference
from harness.evaluation.compare_runs import compare_runs, comparison_table
from tests.support.runs import EVAL, RUN, VARIANT, answer

RIGHT = {"dense": [True] * 9 + [False], "pruned": [True] * 5 + [False] * 5, "random": [True] * 2 + [False] * 8}


def make_run(
    folder: Path, variants: dict[str, list[bool]], dtype: str = "default", prompt: str = "p", **changes: Any
) -> Path:
    rows = []
    for name, correct in variants.items():
        samples = folder / "samples" / name / "mini_math.jsonl"
        samples.parent.mkdir(parents=True)
        lines = (json.dumps({**answer(i, "", right, []), "prompt": f"{prompt} {i}"}) for i, right in enumerate(correct))
        samples.write_text("\n".join(lines) + "\n")
        evals = {"mini_math": {**EVAL, "samples": str(samples.relative_to(folder))}}
        rows.append({**VARIANT, "name": name, "eval": evals})
    run = {
        **RUN,
        "hardware": {"device": "cpu", "sandbox": "bubblewrap"},
        "versions": {"vllm": "0.32.0"},
        "variants": rows,
    }
    (folder / "run.json").write_text(json.dumps({**run, **changes}))
    (folder / "manifest.json").write_text(json.dumps({"settings": {"dtype": dtype}}))
    return folder


def test_variants_are_paired_by_name_and_the_odd_ones_out_with_each_other(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", {"dense": RIGHT["dense"], "pruned": RIGHT["pruned"]})
    b = make_run(tmp_path / "b", {"dense": RIGHT["dense"], "random": RIGHT["random"]})
    found = compare_runs([str(a), str(b)])
    dense, arms = found.comparisons
    assert (dense.difference, dense.lost, dense.gained) == (0.0, 0, 0)
    assert (arms.baseline, arms.variant) == (f"{a}:pruned", f"{b}:random")
    expected = paired_difference(RIGHT["pruned"], RIGHT["random"])
    assert (arms.difference, arms.ci_low, arms.ci_high, arms.lost, arms.gained, arms.mcnemar_p) == (
        expected.difference,
        expected.ci_low,
        expected.ci_high,
        expected.lost,
        expected.gained,
        expected.p_value,
    )
    assert (dense.lost_items, dense.gained_items) == ((), ())
    assert (arms.lost_items, arms.gained_items) == ((2, 3, 4), ())
    assert [c.holm_p for c in found.comparisons] == holm([1.0, expected.p_value])
    assert arms.items_needed and arms.items_needed > 10 and found.settings == {str(b): {}}


def test_one_variant_can_be_named(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", {"dense": RIGHT["dense"], "pruned": RIGHT["pruned"]})
    (found,) = compare_runs([f"{a}:dense", f"{a}:pruned"]).comparisons
    assert found.difference == pytest.approx(-0.4)
    with pytest.raises(UsageError, match="has no variant 'other'; it has dense, pruned"):
        compare_runs([str(a), f"{a}:other"])


def test_only_items_that_both_answered_count(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", {"dense": [True] * 10}), make_run(tmp_path / "b", {"dense": [True, False, True]})
    (found,) = compare_runs([str(a), str(b)]).comparisons
    assert (found.n, found.lost, found.lost_items) == (3, 1, (1,))


def test_another_prompt_for_the_same_item_is_another_test(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", {"dense": [True]}), make_run(tmp_path / "b", {"dense": [True]}, prompt="q")
    with pytest.raises(UsageError, match="item 0 of mini_math has another prompt"):
        compare_runs([str(a), str(b)])


@pytest.mark.parametrize(
    ("changed", "shown"),
    [({"metric": "mean f1"}, "mean f1"), ({"filter": "flexible-extract"}, r"exact_match \(flexible-extract\)")],
)
def test_another_metric_or_filter_is_another_test(changed: dict[str, Any], shown: str, tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"dense": [True, False]}) for name in "ab")
    for folder, found in ((a, {"filter": "strict-match"}), (b, {"filter": "strict-match"} | changed)):
        run = json.loads((folder / "run.json").read_text())
        run["variants"][0]["eval"]["mini_math"] |= found
        (folder / "run.json").write_text(json.dumps(run))
    assert compare_runs([str(a), str(a)]).comparisons[0].difference == 0
    said = rf"measured as exact_match \(strict-match\) in .*/a:dense and as {shown}.* in .*/b:dense; .*--metric-of"
    with pytest.raises(UsageError, match=said):
        compare_runs([str(a), str(b)], different=True)


def test_a_filter_that_an_old_file_does_not_name_is_no_other_one(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"dense": [True, False]}) for name in "ab")
    run = json.loads((a / "run.json").read_text())
    run["variants"][0]["eval"]["mini_math"]["filter"] = "strict-match"
    (a / "run.json").write_text(json.dumps(run))
    assert compare_runs([str(a), str(b)]).comparisons[0].difference == 0


def test_another_number_type_or_device_has_to_be_allowed(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", {"dense": [True]}), make_run(tmp_path / "b", {"dense": [True]}, dtype="bfloat16")
    with pytest.raises(UsageError, match=r"dtype: float32 there, bfloat16 in .*--different"):
        compare_runs([str(a), str(b)])
    found = compare_runs([str(a), str(b)], different=True)
    assert found.settings == {str(b): {"dtype": ("float32", "bfloat16")}}
    assert "dtype (float32 / bfloat16)" in comparison_table(found).note


def test_auto_is_what_it_became_on_the_processor(tmp_path: Path) -> None:
    plain, native = ({"device": "cpu", "cpu": f"Some CPU ({name})"} for name in ("avx2", "avx2, amx_bf16"))
    default = make_run(tmp_path / "default", {"dense": [True]}, hardware=plain)
    slow = make_run(tmp_path / "slow", {"dense": [True]}, dtype="auto", hardware=plain)
    fast = make_run(tmp_path / "fast", {"dense": [True]}, dtype="auto", hardware=native)
    assert not compare_runs([str(default), str(slow)]).settings[str(slow)]
    with pytest.raises(UsageError, match="dtype: float32 there, bfloat16 in"):
        compare_runs([str(slow), str(fast)])


def test_other_versions_are_said_and_not_refused(tmp_path: Path) -> None:
    a, b = (
        make_run(tmp_path / "a", {"dense": [True]}),
        make_run(tmp_path / "b", {"dense": [True]}, versions={"vllm": "0.33.0"}),
    )
    assert "vllm (0.32.0 / 0.33.0)" in comparison_table(compare_runs([str(a), str(b)])).note


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", {"x": [True], "y": [True]}), make_run(tmp_path / "b", {"z": [True]})
    with pytest.raises(UsageError, match="no variant of the same name"):
        compare_runs([str(a), str(b)])
    with pytest.raises(UsageError, match="two runs or more"):
        compare_runs([str(a)])
    with pytest.raises(UsageError, match="give one of the runs in it: a, b"):
        compare_runs([str(a), str(tmp_path)])


def test_the_command_prints_one_document(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"dense": RIGHT[arm]}) for name, arm in (("a", "dense"), ("b", "pruned")))
    made = CliRunner().invoke(cli, ["compare", str(a), str(b), "--json"])
    (found,) = json.loads(made.stdout)["comparisons"]
    assert found["difference"] == pytest.approx(-0.4) and found["holm_p"] == found["mcnemar_p"]
    (row,) = comparison_table(compare_runs([str(a), str(b)])).rows
    assert row[2] == "-40.0" and row[4:6] == ("4", "0")


def test_a_pair_is_named_once_and_several_by_letters(tmp_path: Path) -> None:
    runs = [str(make_run(tmp_path / name, {"dense": RIGHT["dense"], "pruned": RIGHT["pruned"]})) for name in "ab"]
    pair = comparison_table(compare_runs([f"{runs[0]}:dense", f"{runs[1]}:pruned"]))
    assert pair.title.splitlines()[1:] == [f"A: {runs[0]}:dense", f"B: {runs[1]}:pruned"]
    assert pair.head[0] == "task" and not any(run in cell for run in runs for row in pair.rows for cell in row)
    assert "Device, dtype, model and versions are the same." in pair.note
    several = comparison_table(compare_runs(runs))
    assert several.title.splitlines()[1:] == [f"A: {runs[0]}", f"B: {runs[1]}"]
    assert [row[:2] for row in several.rows] == [("B dense", "A dense"), ("B pruned", "A pruned")]


def test_a_run_without_its_samples_is_refused_in_one_line(tmp_path: Path) -> None:
    a, b = (make_run(tmp_path / name, {"dense": [True]}) for name in "ab")
    (b / "samples" / "dense" / "mini_math.jsonl").unlink()
    with pytest.raises(UsageError, match=r"mini_math.jsonl is missing; items are compared from a whole run directory"):
        compare_runs([str(a), str(b)])

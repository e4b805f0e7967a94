"""`make gpu-check`: what it refuses, that a failed part stops nothing, its report. `--tiny` is a step of CI."""

from __future__ import annotations

import json
import re
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.gpu_check import __main__ as gpu_check
from benchmarks.gpu_check.__main__ import Job, folder_of, jobs_of, main, new_results, run_jobs
from benchmarks.gpu_check.engine_parts import check_swap
from benchmarks.gpu_check.report import failed, read_results, shown, write_report
from benchmarks.gpu_check.subjects import RATIOS, Amount, Subject, subjects_of
from harness.core.errors import MeasurementError, StorageError, UsageError
from harness.pipeline.run_json import load_run
from tests.support.models import TINY_MATH

RECORDED = Path(__file__).parent / "gpu_check_results.json"  # of `--tiny`, with one part that failed
SWAP = {
    "dtype": "float32",
    "changed by the swap": 8,
    "dense again after restoring": 8,
    "swapped as exported": 8,
    "first tokens as exported": 8,
}


def results(folder: Path) -> dict[str, Any]:
    shutil.copyfile(RECORDED, folder / "results.json")
    return read_results(folder)


@pytest.fixture()
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "torch sees no GPU here, .*; add --tiny"),
        (("--tiny", "--shape", "7b"), "--tiny has a shape of its own; leave out"),
        (("--tiny", "--model", "x"), "--tiny has a shape of its own; leave out"),
        (("--parts", "everything"), "'everything' is not one of"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(
    options: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    found = CliRunner().invoke(main, [*options, "--out", str(tmp_path / "out")])
    assert found.exit_code == 2 and re.search(reason, found.output)
    assert not (tmp_path / "out").exists()


def test_given_checkpoints_must_open_and_have_names_of_their_own(tmp_path: Path) -> None:
    shutil.copytree(TINY_MATH, tmp_path / "tiny-math")
    with pytest.raises(UsageError, match="another model is called tiny-math too; rename"):
        subjects_of((), (TINY_MATH, tmp_path / "tiny-math"), tmp_path, Amount())
    with pytest.raises(UsageError, match=r"has no readable config\.json"):
        subjects_of((), (tmp_path / "missing",), tmp_path, Amount())


def test_the_disk_has_room_for_all_checkpoints_or_none_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """7B in BF16: 15.2, 12.9 and 11.2 GB, the last once more merged, and two layers' second moments of 1.4 GB."""
    subject = Subject("7b", tmp_path / "7b", Amount())
    assert subject.disk_bytes() == pytest.approx(15.23e9 + 12.92e9 + 2 * 11.23e9 + 2 * 4 * 18944**2, rel=2e-3)
    assert Subject("7b", tmp_path, Amount()).disk_bytes() == 0, "made by an earlier call"
    usage = namedtuple("usage", "total used free")(1 << 40, 0, 40 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(gpu_check, "check_options", lambda *_: None)
    with pytest.raises(StorageError, match=r"needs 54\.\d GiB and 40\.0 GiB are free"):
        gpu_check.check(False, ["7b"], [], [], out=tmp_path / "out", work=tmp_path / "work", seconds=0.0, engine_arg=())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("shape", "widths"), [("7b", [15104, 12288]), ("1.5b", [7168, 5760])])
def test_widths_are_the_papers(shape: str, widths: list[int], tmp_path: Path) -> None:
    subject = Subject(shape, tmp_path, Amount())
    assert [subject.width(ratio) for ratio in RATIOS] == widths
    assert [subject.variant_name(ratio) for ratio in (0.0, RATIOS[0])] == ["dense", f"width-{widths[0]}"]


def test_a_failed_part_is_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def work() -> dict[str, Any]:
        seen.append([entry["name"] for entry in read_results(tmp_path)["parts"]])
        return {"seconds": 1.5}

    def broken() -> dict[str, Any]:
        raise RuntimeError("out of memory\nwith a page of details")

    found: dict[str, Any] = {"parts": []}
    run_jobs(iter([Job("obs", "7b", broken), Job("export", "7b", work, "dense")]), found, tmp_path, 60)
    assert seen == [["obs 7b"]], "written before the next part starts"
    first, second = read_results(tmp_path)["parts"]
    assert first["error"] == "RuntimeError: out of memory"
    assert second["name"] == "export 7b dense" and second["figures"] == {"seconds": 1.5}
    assert failed(found) == ["obs 7b"]
    run_jobs(iter([Job("obs", "7b", work)]), found, tmp_path, 60)
    assert failed(found) == [] and len(found["parts"]) == 2, "measured again"


def test_no_part_starts_after_the_time_is_up(tmp_path: Path) -> None:
    found: dict[str, Any] = {"parts": []}
    run_jobs(iter([Job("facts", "", dict)]), found, tmp_path, -1)
    assert found["parts"][0]["left_out"] == "not started within -1 seconds" and not failed(found)


def test_parts_are_chosen_by_name(tmp_path: Path) -> None:
    subjects = [Subject("7b", tmp_path, Amount()), Subject("own", tmp_path, Amount(), TINY_MATH)]
    every = [job.name for job in jobs_of(subjects[:1], (), False)]
    assert every[:3] == ["facts", "models 7b", "scoring 7b"] and len(every) == len(set(every)) == 14
    chosen = [job.name for job in jobs_of(subjects, ("models", "serving"), False)]
    assert chosen == [
        "models 7b",
        *(f"serving 7b {name}" for name in ("dense", "width-15104", "width-12288")),
        *(f"serving own {name}" for name in ("dense", "width-512", "width-416")),
    ]


def test_results_of_other_versions_or_another_device_are_not_mixed(tmp_path: Path) -> None:
    before = new_results(tmp_path, "NVIDIA H100")
    (tmp_path / "results.json").write_text(json.dumps({**before, "parts": [{"name": "facts"}]}))
    assert new_results(tmp_path, "NVIDIA H100")["parts"] == [{"name": "facts"}]
    assert new_results(tmp_path, "NVIDIA L4")["parts"] == []
    (tmp_path / "results.json").write_text(json.dumps({**before, "versions": {"vllm": "0"}, "parts": [{}]}))
    assert new_results(tmp_path, "NVIDIA H100")["parts"] == []


def test_a_gpus_name_as_a_folder() -> None:
    assert folder_of("NVIDIA H100 80GB HBM3") == "h100-80gb-hbm3"
    assert folder_of("NVIDIA GeForce RTX 4090") == "geforce-rtx-4090"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"changed by the swap": 0}, "changed no answer"),
        ({"dense again after restoring": 7}, "7 of 8 answers are the dense model's"),
        ({"swapped as exported": 7}, "in float32 all must be"),
        ({"first tokens as exported": 3, "dtype": "bfloat16"}, "3 of 8 answers of the swapped engine begin as"),
    ],
)
def test_a_swap_that_does_not_work_is_a_failure(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(MeasurementError, match=reason):
        check_swap({**SWAP, **change})


def test_near_ties_in_16_bits_are_no_failure() -> None:
    check_swap(SWAP)
    check_swap({**SWAP, "dtype": "bfloat16", "swapped as exported": 5, "first tokens as exported": 7})


def test_figures_as_text() -> None:
    assert shown("peak_bytes", None) == "not measured"
    assert shown("weight_bytes", 3 << 30) == "3.0 GiB"
    assert shown("bare_seconds", [0.123456, 2.0]) == "0.1235, 2"
    assert shown("at 1", {"ttft_ms": 1.5}) == "ttft_ms 1.5"


def test_the_report_has_every_part_and_the_serving_figures_as_a_run(tmp_path: Path) -> None:
    recorded = results(tmp_path)
    write_report(tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(entry["name"] in text for entry in recorded["parts"])
    assert failed(recorded) == ["obs tiny"] and "| obs tiny | 0.1 | MeasurementError: a layer" in text
    run = load_run(tmp_path / "tiny")
    assert [v.name for v in run.variants] == ["dense", "width-304", "width-240", "dense-online"]
    assert [v.serving.mode for v in run.variants if v.serving] == ["offline"] * 3 + ["online"]
    assert {(r.baseline, r.variant) for r in run.speed_ratios} == {("dense", "width-240")}
    assert run.versions == recorded["versions"] and [run.command] == recorded["commands"]
    assert "Not measured on a GPU" in (tmp_path / "tiny" / "report.md").read_text(encoding="utf-8")


def test_without_the_dense_model_there_is_no_run_to_compare(tmp_path: Path) -> None:
    recorded = results(tmp_path)
    parts = [entry for entry in recorded["parts"] if entry["name"] != "serving tiny dense"]
    (tmp_path / "results.json").write_text(json.dumps({**recorded, "parts": parts}))
    write_report(tmp_path)
    assert (tmp_path / "report.md").exists() and not (tmp_path / "tiny").exists()


def test_the_exit_code_says_whether_a_part_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong, code in (([], 0), (["obs 7b"], 1)):
        monkeypatch.setattr(gpu_check, "check", lambda wrong=wrong, **_: wrong)
        found = CliRunner().invoke(main, ["--tiny", "--out", str(tmp_path)])
        assert found.exit_code == code and all(name in found.output for name in wrong)

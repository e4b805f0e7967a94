from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from harness.core.errors import StorageError, UsageError
from harness.core.files import atomic_path, check_disk, load_arrays, save_arrays, write_json
from harness.core.hashing import file_hash
from harness.core.run_directory import RunDirectory, locked
from harness.core.safetensors_stream import data_hash


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    write_json(target, {"old": 1})

    def fail() -> None:
        with atomic_path(target) as scratch:
            scratch.write_text("half")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == '{\n "old": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_a_full_disk_is_said_in_one_line(tmp_path: Path) -> None:
    for error in (
        OSError(28, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ):
        said = "no space left while writing .*x: it has 5 bytes so far and .* free"
        with pytest.raises(StorageError, match=said), atomic_path(tmp_path / "x") as scratch:
            scratch.write_text("a few")
            raise error


def test_need_disk_refuses_what_cannot_fit(tmp_path: Path) -> None:
    check_disk(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(StorageError, match=r"needs 1181116006\.4 GiB and .*[1-9].* are free"):
        check_disk(tmp_path, 1 << 60)


def test_a_small_disk_is_told_in_small_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=300 << 10))
    with pytest.raises(StorageError, match=r"needs 550\.0 KiB and 300\.0 KiB are free"):
        check_disk(tmp_path, 500 << 10)


def test_arrays_have_the_same_bytes_every_time_and_come_back(tmp_path: Path) -> None:
    arrays = {f"layers.{i}.keep": np.arange(i + 1, dtype=np.int32) for i in range(5)}
    metadata = {key: key for key in "abcdefghijkl"}
    for i in range(10):
        save_arrays(tmp_path / f"{i}.safetensors", arrays, metadata)
    assert len({(tmp_path / f"{i}.safetensors").read_bytes() for i in range(10)}) == 1
    loaded, meta = load_arrays(tmp_path / "0.safetensors", "harness plan")
    assert meta == metadata
    assert all(np.array_equal(loaded[name], array) for name, array in arrays.items())


def test_a_file_that_is_no_safetensors_names_the_command(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    with pytest.raises(UsageError, match="harness plan"):
        load_arrays(tmp_path / "x", "harness plan")


def test_a_stage_is_finished_until_its_inputs_or_outputs_change(tmp_path: Path) -> None:
    run, output = RunDirectory(tmp_path), tmp_path / "plan"
    run.open({"ratio": 0.2}, fresh=False)
    output.write_text("a")
    run.finish("plan", "inputs", [output])
    again = RunDirectory(tmp_path)
    again.open({"ratio": 0.2}, fresh=False)
    assert again.finished("plan", "inputs")
    assert not again.finished("plan", "other inputs")
    output.write_text("b")
    assert not again.finished("plan", "inputs")
    output.unlink()
    assert not again.finished("plan", "inputs")


def test_other_settings_are_refused_and_fresh_starts_over(tmp_path: Path) -> None:
    RunDirectory(tmp_path).open({"ratio": 0.2}, fresh=False)
    (tmp_path / "old").write_text("x")
    with pytest.raises(UsageError, match=r"ratio: 0\.2 there, 0\.3 now.*--fresh"):
        RunDirectory(tmp_path).open({"ratio": 0.3}, fresh=False)
    RunDirectory(tmp_path).open({"ratio": 0.3}, fresh=True)
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_a_folder_that_is_no_run_directory_is_never_emptied(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not a run directory"):
        RunDirectory(tmp_path).open({}, fresh)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(
    "text", ['{"schema_version": 1, "manifest_version": 3}', '{"name": "a web app"}', "[]", "not json"]
)
def test_a_manifest_of_another_program_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    for fresh in (False, True):
        with pytest.raises((UsageError, StorageError), match="another --out"):
            RunDirectory(tmp_path).open({}, fresh)
        assert (tmp_path / "manifest.json").read_text() == text


def test_a_folder_with_other_things_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="another --out"), atomic_path(tmp_path / "out") as scratch:
        scratch.write_text("x")
    assert [p.name for p in tmp_path.rglob("*")] == ["out", "thesis.tex"]


def test_a_run_directory_has_one_user_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StorageError, match="in use"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_file_hash_sees_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = file_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert file_hash(tmp_path) != first
    (tmp_path / "c").write_text("1")
    assert file_hash(tmp_path / "b") == file_hash(tmp_path / "c"), "of one file, only what is in it"


def test_a_run_killed_in_its_first_write_goes_on(tmp_path: Path) -> None:
    (tmp_path / ".manifest.json.abc").mkdir()
    RunDirectory(tmp_path).open({"ratio": 0.2}, fresh=False)
    assert not (tmp_path / ".manifest.json.abc").exists()


def test_the_hash_of_the_data_does_not_see_the_metadata(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.int32), "b": np.ones((2, 3), dtype=np.float32)}
    save_arrays(tmp_path / "one", arrays, {"made": "yesterday"})
    save_arrays(tmp_path / "two", arrays, {"made": "today, by somebody else"})
    assert data_hash(tmp_path / "one") == data_hash(tmp_path / "two")
    for name, changed in (
        ("a", np.arange(1, 7, dtype=np.int32)),
        ("b", np.ones((3, 2), dtype=np.float32)),
        ("c", arrays["a"]),
    ):
        save_arrays(tmp_path / "other", {**arrays, name: changed}, {})
        assert data_hash(tmp_path / "other") != data_hash(tmp_path / "one")


def test_seconds_add_up_over_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    first = RunDirectory(tmp_path)
    first.open({"a": 1}, False)
    clock[0] += 100
    first.finish("one", "x", [])
    assert first.seconds == 100
    again = RunDirectory(tmp_path)
    again.open({"a": 1}, False)
    assert again.seconds == 100
    clock[0] += 10
    again.finish("two", "x", [])
    assert again.seconds == 110


def test_what_a_killed_run_was_writing_is_removed_when_it_goes_on(tmp_path: Path) -> None:
    """Scratch folders of atomic writes, at any depth; not the lock, nor what has been written."""
    RunDirectory(tmp_path).open({}, fresh=False)
    left = [tmp_path / ".plan.abc123_4", tmp_path / "arms" / "a" / ".checkpoint.x1234567"]
    for folder in left:
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    kept = [tmp_path / "arms" / "a" / "plan", tmp_path / ".lock", tmp_path / ".hidden", tmp_path / ".my.notes" / "a"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("whole")
    RunDirectory(tmp_path).open({}, fresh=False)
    assert not any(folder.exists() for folder in left) and all(path.read_text() == "whole" for path in kept)


def test_a_clearing_that_is_killed_can_be_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest says that the folder is a run's: while anything else is left, it has to be there."""
    RunDirectory(tmp_path).open({"a": 1}, fresh=False)
    for name in ("a.json", "z.json", "samples/dense/t.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    real, left = Path.unlink, [3]

    def dying(self: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", dying)
    with pytest.raises(KeyboardInterrupt):
        RunDirectory(tmp_path).clear()
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"]
    RunDirectory(tmp_path).open({"b": 2}, fresh=True)
    assert RunDirectory(tmp_path).path.joinpath("manifest.json").exists()


def test_no_key_of_the_environment_gets_into_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_LEAK_7711")
    monkeypatch.setenv("VLLM_API_KEY", "hk-LEAK-9922")
    settings = {"model": "https://hf_LEAK_7711@hub/m", "task": ("a", "b")}
    for _ in range(2):  # what was hidden there is hidden in what it is compared with
        directory = RunDirectory(tmp_path / "r")
        (tmp_path / "r").mkdir(exist_ok=True)
        directory.open(settings, False, "harness serve m --x hk-LEAK-9922", {"model": "hf_LEAK_7711"})
        with pytest.raises(RuntimeError), directory.working():
            raise RuntimeError("401 for hk-LEAK-9922")
    text = (tmp_path / "r" / "manifest.json").read_text()
    assert "LEAK" not in text and '"failed: 401 for ..."' in text and directory.command == "harness serve m --x ..."


@pytest.mark.parametrize("kind", ["link", "fifo", "device"])
def test_a_lock_that_is_no_file_of_the_run_is_refused_and_its_target_left_alone(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("precious")
    lock = tmp_path / "run" / ".lock"
    if kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to("/dev/null" if kind == "device" else "../mine")
    with (
        pytest.raises(StorageError, match=r"\.lock (cannot be opened|is not a regular file)"),
        locked(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["/dev/zero", "../mine", "link", "fifo"])
def test_an_output_that_is_no_file_of_the_run_is_not_read_and_the_stage_is_done_again(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "run" / "link").symlink_to("../mine")
    os.mkfifo(tmp_path / "run" / "fifo")
    directory = RunDirectory(tmp_path / "run")
    directory.manifest["stages"]["score"] = {"inputs": "x", "outputs": {name: file_hash(tmp_path / "mine")}}
    assert not directory.finished("score", "x")


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "[" * 100_000,
        '{"schema_version": 2, "settings": 3, "stages": {}}',
        '{"schema_version": 2, "settings": {}, "stages": {"score": 3}}',
        '{"schema_version": 2, "settings": {}, "stages": {"score": {"inputs": "x", "outputs": ["/dev/zero"]}}}',
    ],
)
def test_a_manifest_of_another_form_is_one_line(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises((StorageError, UsageError), match=r"manifest\.json is"):
        RunDirectory(tmp_path).open({}, False)


def test_starting_over_removes_a_link_and_not_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    (tmp_path / "run").mkdir()
    known = {"schema_version": 2, "settings": {}, "stages": {}}
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(known))
    (tmp_path / "run" / "samples").symlink_to("../mine")
    RunDirectory(tmp_path / "run").clear()
    assert list((tmp_path / "run").iterdir()) == [] and (tmp_path / "mine" / "file").read_text() == "precious"


def test_the_same_weights_under_another_name_go_on(tmp_path: Path) -> None:
    """A run directory was moved with its model, or the model is typed absolutely."""
    for key, value in (("fingerprint", "abc"), ("fingerprints", ["abc"])):
        folder = tmp_path / key
        folder.mkdir()
        RunDirectory(folder).open({"model": "models/x", "ratio": 0.2, key: value}, fresh=False)
        RunDirectory(folder).open({"model": "/models/x", "ratio": 0.2, key: value}, fresh=False)
        with pytest.raises(UsageError, match=rf"other settings \({key}: .*model: "):
            RunDirectory(folder).open({"model": "models/x", "ratio": 0.2, key: "def"}, fresh=False)
        with pytest.raises(UsageError, match=r"other settings \(ratio: 0.2 there, 0.3 now\)"):
            RunDirectory(folder).open({"model": "models/x", "ratio": 0.3, key: value}, fresh=False)
    RunDirectory(tmp_path / "old").path.mkdir()
    RunDirectory(tmp_path / "old").open({"model": "x"}, fresh=False)
    with pytest.raises(UsageError, match="model: 'x' there, 'y' now"):
        RunDirectory(tmp_path / "old").open({"model": "y"}, fresh=False)

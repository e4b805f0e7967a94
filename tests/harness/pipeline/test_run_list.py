"""What `harness runs` says of a directory is what happened in it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.core.errors import MeasurementError, UsageError
from harness.core.files import write_json
from harness.core.run_directory import RunDirectory, locked
from harness.pipeline.run_list import RunInfo, list_runs, run_lines

COMMAND = "harness run --ratio 0.3 --fresh --out 'a b'"


def begun(folder: Path, **settings: object) -> RunDirectory:
    directory = RunDirectory(folder)
    folder.mkdir(parents=True)
    directory.open({"model": "tiny-math", "task": ["mini_math"], **settings}, False, COMMAND)
    return directory


def only(folder: Path) -> RunInfo:
    (info,) = list_runs(folder)
    return info


def test_of_a_killed_run_it_says_what_it_was_at_and_how_to_go_on(tmp_path: Path) -> None:
    directory = begun(tmp_path / "r")
    directory.begin("score")
    write_json(tmp_path / "r" / "scores.json", {})
    directory.finish("score", "x", [tmp_path / "r" / "scores.json"])
    directory.begin("eval dense")
    info = only(tmp_path)
    assert (info.state, info.note, info.model, info.task) == (
        "killed",
        "at eval dense, 1 stage done",
        "tiny-math",
        "mini_math",
    )
    assert info.resume_command == "harness run --ratio 0.3 --out 'a b'"  # --fresh would start over
    assert [line.strip() for line in run_lines([info])][1:] == [info.note, f"$ {info.resume_command}"]


def test_a_run_at_work_holds_its_lock(tmp_path: Path) -> None:
    directory = begun(tmp_path / "r")
    with locked(tmp_path / "r"):
        directory.begin("score")
        assert only(tmp_path).state == "running" and only(tmp_path).resume_command is None
    assert only(tmp_path).state == "killed"


@pytest.mark.parametrize(
    ("error", "state", "note"),
    [
        (MeasurementError("no sandbox\nand more"), "failed", "no sandbox (at score, 0 stages done)"),
        (KeyboardInterrupt(), "stopped", "stopped by Ctrl-C (at score, 0 stages done)"),
    ],
)
def test_an_error_and_ctrl_c_leave_word(tmp_path: Path, error: BaseException, state: str, note: str) -> None:
    directory = begun(tmp_path / "r")
    with pytest.raises(type(error)), directory.working():
        directory.begin("score")
        raise error
    assert (only(tmp_path).state, only(tmp_path).note) == (state, note)


def test_a_finished_one_and_one_with_failed_cells(tmp_path: Path) -> None:
    with begun(tmp_path / "r").working():
        pass
    assert (only(tmp_path).state, only(tmp_path).resume_command) == ("finished", None)
    (tmp_path / "r" / "report.html").touch()
    assert run_lines([only(tmp_path)])[1:] == [f"{'':<9} report: {tmp_path / 'r' / 'report.html'}"]
    write_json(tmp_path / "r" / "run.json", {"sweep": {"failed": [{"cell": "a", "reason": "b"}]}})
    assert only(tmp_path).note == "cells that failed: 1; the same command retries them"
    assert only(tmp_path).resume_command == "harness run --ratio 0.3 --out 'a b'"


def test_opening_it_again_forgets_how_it_had_ended(tmp_path: Path) -> None:
    directory = begun(tmp_path / "r")
    with pytest.raises(MeasurementError), directory.working():
        raise MeasurementError("x")
    RunDirectory(tmp_path / "r").open({"model": "tiny-math", "task": ["mini_math"]}, False, "harness run")
    assert only(tmp_path).state == "killed"


def test_it_filters_and_passes_over_what_is_no_run(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    with begun(tmp_path / "b", model="qwen-7b", task=["gsm8k_boxed"]).working():
        pass
    (tmp_path / "c").mkdir()
    write_json(tmp_path / "c" / "manifest.json", {"name": "a web app"})
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("{")
    assert {Path(info.path).name for info in list_runs(tmp_path)} == {"a", "b"}
    assert [Path(info.path).name for info in list_runs(tmp_path, model="qwen")] == ["b"]
    assert [Path(info.path).name for info in list_runs(tmp_path, task="mini_math")] == ["a"]
    assert [Path(info.path).name for info in list_runs(tmp_path, states=["finished"])] == ["b"]
    assert [Path(info.path).name for info in list_runs(tmp_path / "a")] == ["a"]
    with pytest.raises(UsageError, match="is not a folder"):
        list_runs(tmp_path / "none")


def test_a_second_start_that_is_killed_is_not_called_finished(tmp_path: Path) -> None:
    with begun(tmp_path / "r").working():
        write_json(tmp_path / "r" / "run.json", {})
    RunDirectory(tmp_path / "r").open({"model": "tiny-math", "task": ["mini_math"]}, False, "harness eval x")
    assert (only(tmp_path).state, only(tmp_path).note) == ("killed", "between two stages, 0 stages done")


def test_what_an_older_version_finished_is_finished(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    write_json(tmp_path / "r" / "manifest.json", {"schema_version": 1, "settings": {}, "stages": {}})
    assert only(tmp_path).state == "killed"
    write_json(tmp_path / "r" / "run.json", {"command": "harness run"})
    assert only(tmp_path).state == "finished"


def test_to_go_on_settings_and_folder_of_then_are_given_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r").mkdir()
    command = "harness serve m --api-key ... --port 1 --api-key=..."
    RunDirectory(tmp_path / "r").open({}, False, command, {"ratio": "0.3", "task": "a b"})
    assert only(tmp_path).resume_command == "HARNESS_RATIO=0.3 HARNESS_TASK='a b' harness serve m --port 1"
    here = Path.cwd()
    monkeypatch.chdir(tmp_path / "r")
    assert str(only(tmp_path).resume_command).startswith(f"cd {here} && HARNESS_RATIO=0.3 ")


def test_a_run_that_python_started_has_no_command(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    RunDirectory(tmp_path / "r").open({"model": "tiny-math"}, False)
    assert (only(tmp_path).state, only(tmp_path).command, only(tmp_path).resume_command) == ("killed", None, None)


@pytest.mark.parametrize(
    "odd", [{"command": "harness run 'x"}, {"settings": "abc"}, {"settings": {"task": [1]}}, {"environment": 3}]
)
def test_a_damaged_directory_does_not_hide_the_others(tmp_path: Path, odd: dict[str, object]) -> None:
    begun(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    write_json(tmp_path / "bad" / "manifest.json", {"stages": {}, "settings": {}, "command": "harness run", **odd})
    assert "good" in {Path(info.path).name for info in list_runs(tmp_path)}


def foreign(place: Path, **manifest: object) -> Path:
    place.mkdir(exist_ok=True)
    known = {"schema_version": 2, "settings": {"model": "m", "task": ["t"]}, "stages": {}, "command": "harness run"}
    write_json(place / "manifest.json", {**known, **manifest})
    return place


@pytest.mark.parametrize(
    "name",
    ["X=1; touch /tmp/x; Y", "ratio; id", "RATIO", "$(id)", "ratio\n", "no_such_setting", "path", "ld_preload", ""],
)
def test_settings_that_harness_does_not_know_are_not_in_a_command_to_copy(tmp_path: Path, name: str) -> None:
    foreign(tmp_path / "r", environment={name: "1", "ratio": "0.3; id"})
    assert only(tmp_path).resume_command == "HARNESS_RATIO='0.3; id' harness run"


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "harness; id",
        "harness",
        "sh -c 'harness run'",
        "harness push x --yes --public",
        "/tmp/harness run",
        "harness run '\n $ id'",
        "harness run \x1b]0;x",
        "harness run \u202e",
        "--fresh harness; run",
    ],
)
def test_nothing_but_a_run_of_harness_is_a_command_to_copy(tmp_path: Path, command: str) -> None:
    foreign(tmp_path / "r", command=command)
    assert only(tmp_path).resume_command is None


def test_what_a_shell_would_do_with_a_command_or_a_folder_is_quoted(tmp_path: Path) -> None:
    foreign(tmp_path / "r", command="harness run ; id $(id) `id`", folder="/x; id")
    assert only(tmp_path).resume_command == "cd '/x; id' && harness run ';' id '$(id)' '`id`'"


def test_no_name_makes_a_line_of_its_own_or_an_order_to_the_terminal(tmp_path: Path) -> None:
    hostile = "m\n$ harness run --out /\r\x1b[2J\u2028\x9b\u202e"
    foreign(tmp_path / "r", settings={"model": hostile, "task": hostile}, at=hostile, end=f"failed: {hostile}")
    lines = run_lines([only(tmp_path)])
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", ["manifest.json", ".lock", "run.json"])
@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "../secret", "folder"])
def test_what_is_no_file_of_the_run_is_neither_waited_for_nor_read(tmp_path: Path, name: str, kind: str) -> None:
    folder = foreign(tmp_path / "r", end="finished")
    write_json(tmp_path / "secret", {"schema_version": 2, "settings": {"model": "SECRET"}, "stages": {}})
    file = folder / name
    file.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(kind)
    assert [info.state for info in list_runs(tmp_path)] == ([] if name == "manifest.json" else ["finished"])


def test_nesting_without_end_does_not_hide_the_others(tmp_path: Path) -> None:
    begun(tmp_path / "good")
    for name, text in (("a", "[" * 100_000), ("b", '{"stages":' * 100_000), ("c", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(text)
    assert Path(only(tmp_path).path).name == "good"


@pytest.mark.parametrize("manifest", ["[]", "{", "3", '{"stages": 3}', '{"stages": {}, "settings": [1]}'])
def test_a_damaged_directory_that_was_asked_for_is_said(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UsageError, match=r"manifest\.json is damaged"):
        list_runs(tmp_path)

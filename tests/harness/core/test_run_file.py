"""A run.json of another form, whichever, is one clear line, in every command that reads one."""

from __future__ import annotations

import copy
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.core.errors import HarnessError, UsageError
from harness.core.jsonl import write_rows
from harness.core.run_file import figures_of, read_answers, read_run
from harness.core.run_schema import SCHEMA_VERSION
from harness.evaluation.compare_runs import compare_runs
from harness.pipeline.run_json import load_run
from harness.pipeline.run_list import list_runs, run_lines
from harness.publish.hub import prepare_upload
from harness.publish.trackers import track
from reports.build import write_reports
from tests.support.cli import harness
from tests.support.runs import EXAMPLE, RUN, VARIANT, answer, write_samples

READERS: dict[str, Callable[[Path], object]] = {
    "report": lambda run: write_reports(run, ("md", "csv", "card")),
    "compare": lambda run: compare_runs([str(run), str(run)], True),
    "push": lambda run: prepare_upload(run, None),
    "runs": lambda run: run_lines(list_runs(run)),
    "load_run": lambda run: load_run(run).to_rows(),
}
WRONG = st.sampled_from(
    [None, True, "x", "", [], {}, -1, 0, 0.5, 1e308, float("nan"), [[]], {"a": {}}, [None], ["x"], "../..", "\ud800"]
)


def made(folder: Path, document: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        "{}",
        "3",
        "null",
        "{",
        "[" * 100_000,
        '{"a":' * 100_000,
        "9" * 5000,
        json.dumps({**RUN, "schema_version": 3}),
        json.dumps({**RUN, "variants": []}),
        json.dumps({**RUN, "variants": [VARIANT, VARIANT]}),
        json.dumps({**RUN, "variants": [{"name": "x"}]}),
        json.dumps({**RUN, "hardware": None}),
        json.dumps({**RUN, "model": "\ud800"}),
    ],
)
@pytest.mark.parametrize(
    "command", [["report"], ["inspect"], ["track", "--with", "trackio"], ["push", "--yes"], ["push", "--dry-run"]]
)
def test_another_document_is_one_line(tmp_path: Path, document: str, command: list[str]) -> None:
    found = harness(command[0], str(made(tmp_path / "r", document)), *command[1:])
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1, found.stderr
    assert "unexpected" not in found.stderr and found.stdout == ""
    assert [file.name for file in (tmp_path / "r").iterdir()] == ["run.json"]  # nothing half-written


@pytest.mark.parametrize("document", ["[]", "{}", "{", json.dumps({**RUN, "variants": 3})])
def test_compare_and_load_run_say_the_same(tmp_path: Path, document: str) -> None:
    good, bad = made(tmp_path / "good", RUN), made(tmp_path / "bad", document)
    for sides in ([bad, good], [good, bad]):
        found = harness("compare", *map(str, sides))
        assert found.returncode == 2 and "run.json" in found.stderr and len(found.stderr.splitlines()) == 1
    with pytest.raises(UsageError, match=r"run\.json"):
        load_run(bad / "run.json")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A sweep's run directory, small enough to be read hundreds of times."""
    folder = tmp_path_factory.mktemp("mutated")
    run = json.loads(EXAMPLE.read_text(encoding="utf-8"))
    run["variants"] = run["variants"][:3]
    names = {v["name"] for v in run["variants"]}
    run["sweep"]["points"] = [p for p in run["sweep"]["points"] if set(p["variants"]) <= names]
    write_samples(folder, run, 5)
    return folder, run


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_field_that_is_missing_or_of_another_kind_is_a_line_or_no_matter(
    sweep: tuple[Path, dict[str, Any]], data: st.DataObject
) -> None:
    folder, whole = sweep
    run = copy.deepcopy(whole)
    *way, last = data.draw(st.sampled_from(list(places(run))))
    inner = run
    for key in way:
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[last] = data.draw(WRONG)
    else:
        del inner[last]
    made(folder, run)
    for read in READERS.values():
        try:
            read(folder)
        except HarnessError as error:
            assert "\n" not in str(error).strip()


def test_a_field_that_is_not_needed_gets_its_default_and_an_unknown_one_is_left_out(tmp_path: Path) -> None:
    run = read_run(made(tmp_path, {**RUN, "new_field": 1}))
    assert "new_field" not in run and run["sweep"] is None and run["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize("kind", ["fifo", "device", "link"])
def test_a_run_json_that_is_no_file_of_the_run_is_refused(tmp_path: Path, kind: str) -> None:
    folder, file = tmp_path / "r", tmp_path / "r" / "run.json"
    folder.mkdir()
    made(tmp_path / "other", RUN)
    if kind == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if kind == "device" else "../other/run.json")
    with pytest.raises(UsageError, match="not a regular file" if kind == "fifo" else "leads out"):
        read_run(folder)


def with_samples(folder: Path, samples: str) -> Path:
    v = copy.deepcopy(VARIANT)
    v["eval"]["mini_math"]["samples"] = samples
    return made(folder, {**RUN, "variants": [v]})


@pytest.mark.parametrize("command", ["report", "compare"])
@pytest.mark.parametrize(
    "samples", ["/dev/zero", "../secret.jsonl", "link.jsonl", "fifo", "folder", "other.jsonl", "endless", "a.jsonl.gz"]
)
def test_answers_are_read_from_below_the_run_and_in_their_form_only(tmp_path: Path, command: str, samples: str) -> None:
    folder = with_samples(tmp_path / "r", samples)
    write_rows(tmp_path / "secret.jsonl", [answer(0, "SECRET", True, [])])
    (folder / "link.jsonl").symlink_to("../secret.jsonl")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"\n" * 2**20))
    write_rows(folder / "other.jsonl", [{"question": "x", "doc_id": 0}])
    with (folder / "endless").open("wb") as file:
        file.truncate(2**30)  # a sparse file: one line of null bytes
    runs = [str(folder)] * (2 if command == "compare" else 1)
    found = harness(command, *runs)
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1 and "unexpected" not in found.stderr
    assert not (folder / "report.html").exists()


def test_more_rows_than_any_evaluation_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "a.jsonl", [answer(i, "", True, []) for i in range(9)])
    assert len(read_answers(tmp_path, "a.jsonl") or ()) == 9
    monkeypatch.setattr("harness.core.run_file._MOST_ANSWER_BYTES", 500)
    with pytest.raises(UsageError, match="more than 500 bytes"):
        read_answers(tmp_path, "a.jsonl")


def test_a_row_without_what_the_metric_needs_is_named(tmp_path: Path) -> None:
    folder = with_samples(tmp_path / "r", "a.jsonl")
    write_rows(folder / "a.jsonl", [{**answer(7, "", True, []), "correct": None}])
    with pytest.raises(UsageError, match=r"item 7 of .*a\.jsonl has no correct, which exact_match needs"):
        compare_runs([str(folder), str(folder)])


@pytest.mark.parametrize("manifest", ["[]", '{"settings": 3}', "{", '{"settings": [1]}'])
def test_compare_says_that_a_manifest_is_damaged(tmp_path: Path, manifest: str) -> None:
    folder = with_samples(tmp_path / "r", "a.jsonl")
    write_rows(folder / "a.jsonl", [answer(0, "", True, [])])
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(UsageError, match=r"manifest\.json is damaged"):
        compare_runs([str(folder), str(folder)])


def test_nothing_is_sent_to_a_tracker_of_figures_that_contradict_each_other(tmp_path: Path) -> None:
    run = {**RUN, "variants": [{**VARIANT, "ratio_neurons": float("inf")}]}
    with pytest.raises(UsageError, match="do not fit together"):
        track(made(tmp_path, run), "trackio")


def test_an_error_of_ours_passes_through(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mine"), figures_of(tmp_path):
        raise UsageError("mine")


MANIFEST = {"schema_version": 2, "settings": {}, "stages": {}, "end": None}


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        ("harness recover tiny-math --out mine", {}, "resume it with `harness recover tiny-math --out mine`"),
        ("harness sweep --fresh", None, "resume it with `harness sweep`"),
        ("harness run", {"ratio": "0.3"}, "`harness runs mine` shows the command"),
        ("rm -rf /", {}, "`harness runs mine` shows the command"),
        (None, {}, "`harness runs mine` shows the command"),
        (7, {}, "`harness runs mine` shows the command"),
        ("harness run 'open", {}, "`harness runs mine` shows the command"),
    ],
)
def test_of_an_unfinished_run_the_command_that_it_was_is_told(command: Any, environment: Any, said: str) -> None:
    """Also by report, compare and push, which read the run."""
    folder = Path("mine")
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps({**MANIFEST, "command": command, "environment": environment}))
    reads: tuple[Callable[[Path], object], ...] = (
        read_run,
        write_reports,
        lambda path: compare_runs([str(path), str(path)]),
        lambda path: prepare_upload(path, None),
    )
    for read in reads:
        with pytest.raises(UsageError, match="has not finished") as error:
            read(folder)
        assert said in str(error.value)

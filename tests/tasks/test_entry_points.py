"""Tasks, metrics and families of installed packages, by the entry points of tests/example_package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness.cli.completion import complete_metrics, complete_tasks
from harness.core.errors import UsageError
from harness.core.installed import Installed
from harness.evaluation import item_ids
from harness.pipeline.resolve import name_problems
from pruning import score_file, scores
from pruning.families import FAMILIES
from pruning.scores import METRICS, known_metrics, score
from tasks.registry import TASKS, find_task, loadable_tasks
from tests.support.activations import random_stats
from tests.support.models import build_model

PACKAGE = Path(__file__).resolve().parent.parent / "example_package"


@pytest.fixture()
def installed(tmp_path: Path) -> Path:
    """What pip makes of the package, without the network that its build would need."""
    shutil.copytree(PACKAGE, tmp_path, dirs_exist_ok=True)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "harness_example-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [
        line
        for group, objects in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in objects.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join([*lines, ""]))
    return tmp_path


def harness(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(place), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "harness", *arguments],
        capture_output=True,
        text=True,
        cwd=place,
        env={**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"},
    )


@pytest.mark.slow
def test_a_task_of_another_package_is_listed_and_can_be_run(installed: Path) -> None:
    listed = harness(installed, "tasks", "--json")
    assert "example_sums" in {row["name"] for row in json.loads(listed.stdout)}, listed.stderr
    run = harness(installed, "run", "--task", "example_sums,mini_facts", "--dry-run", "--json")
    assert run.returncode == 0, run.stderr
    assert "dense x example_sums" in json.loads(run.stdout)["cells"]


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_is_one_line_and_only_where_it_is_used(installed: Path) -> None:
    (installed / "harness_example.py").write_text("import no_such_module\n")
    found = harness(installed, "run", "--task", "example_sums", "--dry-run")
    assert found.returncode == 2 and found.stderr.count("\n") == 1
    assert "the task example_sums of an installed package cannot be loaded: No module named" in found.stderr
    assert harness(installed, "run", "--task", "mini_facts", "--dry-run").returncode == 0
    listed = harness(installed, "tasks", "--json")
    assert listed.returncode == 0 and listed.stderr.count("\n") == 1
    assert listed.stderr.startswith("left out: the task example_sums of an installed package cannot be loaded")
    assert {"mini_facts", "wikitext"} <= {row["name"] for row in json.loads(listed.stdout)}


@pytest.fixture()
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points, in this process, of a package that cannot be imported."""
    for table, name in ((TASKS, "example_sums"), (scores._WITH_INSTALLED, "example-peak")):
        monkeypatch.setitem(vars(table), "_others", {name: "no_such_module:OBJECT"})
        monkeypatch.setattr(table, "_told", set())


@pytest.mark.usefixtures("broken")
def test_a_metric_that_cannot_be_loaded_is_refused_by_name_and_left_out_of_what_did_not_ask_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "the metric example-peak of an installed package cannot be loaded: No module named 'no_such_module'"
    with pytest.raises(UsageError, match=line):
        scores.check_metric("example-peak")
    assert list(name_problems({"metric": "example-peak"})) == [("metric", line)]
    assert score(random_stats(width=8)).keys() == METRICS.keys()
    assert capsys.readouterr().err == f"left out: {line}\n"
    for _ in range(2):
        assert [name for name, _ in scores.describe_metrics()].count("S") == 1
    assert capsys.readouterr().err == f"left out: {line}\n"  # once


@pytest.mark.usefixtures("broken")
def test_lists_ids_and_what_the_shell_offers_do_without_what_cannot_be_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    offered = {item.value for item in (*complete_tasks(None, None, ""), *complete_metrics(None, None, ""))}
    assert {"mini_facts", "gsm8k", "rms"} <= offered and not {"example_sums", "example-peak"} & offered
    assert capsys.readouterr().err == ""  # nothing in the line that is being typed
    assert [task.name for task in loadable_tasks()] == [name for name in TASKS if name != "example_sums"]
    assert item_ids._owner("of another benchmark", find_task("mini_facts")) is None


def test_a_metric_that_fails_ends_a_scoring_only_if_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(vars(scores._WITH_INSTALLED), "_others", {"example-peak": "operator:neg"})
    stats, line = random_stats(width=8), "the metric example-peak of an installed package failed: bad operand type"
    assert "example-peak" not in score(stats, asked=("rms",))
    assert capsys.readouterr().err.startswith(f"left out: {line}")
    with pytest.raises(UsageError, match=line):
        score(stats, asked=("example-peak",))


def test_names_of_ours_stay_ours_and_objects_must_be_what_the_group_holds(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed))
    table: Installed[int] = Installed({"example_sums": 1, "another": 2}, "harness.tasks", "task", lambda *_: False)
    assert set(table) == {"example_sums", "another"} and table["example_sums"] == 1
    foreign: Installed[str] = Installed({}, "harness.metrics", "metric", lambda *_: False)
    assert "example-peak" in foreign and len(foreign) == 1
    with pytest.raises(UsageError, match=r"the entry point example-peak .* is no metric of that name; mend"):
        foreign["example-peak"]
    with pytest.raises(KeyError):
        foreign["example-valley"]


def test_a_metric_gives_a_number_for_each_neuron(monkeypatch: pytest.MonkeyPatch) -> None:
    stats = random_stats(width=8)
    for wrong in (lambda s: s.down_norm[0], lambda s: s.down_norm.astype(str)):
        monkeypatch.setitem(METRICS, "wrong", wrong)
        with pytest.raises(UsageError, match=r"the metric wrong gave .* not a number for each of \[2, 8\] neurons"):
            score(stats, ["wrong"])


@pytest.mark.long
@pytest.mark.slow
def test_a_metric_and_a_family_of_another_package(installed: Path) -> None:
    """A checkpoint that we do not know is scored by a metric that we do not know; ours are those of the package."""
    assert "helium" not in FAMILIES and "example-peak" not in known_metrics()
    build_model("helium", installed / "model")
    listed = harness(installed, "metrics", "--json")
    assert {"name": "example-peak", "what": "E|h_j| over the task's tokens"} in json.loads(listed.stdout), listed.stderr
    scored = harness(
        installed, "score", "model", "--task", "example_sums", "--calibration-samples", "8", "--out", "s.safetensors"
    )
    assert scored.returncode == 0, scored.stderr
    tables, weights = (
        score_file.load(installed / "s.safetensors").scores,
        load_file(installed / "model" / "model.safetensors"),
    )
    for layer in range(len(tables["contrib"])):
        norms = np.linalg.norm(weights[f"model.layers.{layer}.mlp.down_proj.weight"], axis=0)
        assert np.allclose(tables["example-peak"][layer] * norms, tables["contrib"][layer], rtol=1e-5)
    options = ("--task", "example_sums,mini_facts", "--metric", "example-peak", "--ratio", "0.5", "--dry-run")
    planned = harness(installed, "run", "--model", "model", *options, "--json")
    assert planned.returncode == 0, planned.stderr
    assert json.loads(planned.stdout)["cells"], planned.stdout

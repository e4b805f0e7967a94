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

from harness.core.errors import UsageError
from harness.core.installed import Installed
from pruning import score_file
from pruning.families import FAMILIES
from pruning.scores import METRICS, known_metrics, score
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

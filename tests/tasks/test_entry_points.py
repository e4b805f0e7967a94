"""Tasks of installed packages, by the entry points of tests/example_package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "example_package"


@pytest.fixture()
def installed(tmp_path: Path) -> Path:
    """What pip makes of the package, without the network that its build would need."""
    shutil.copytree(PACKAGE, tmp_path, dirs_exist_ok=True)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = tmp_path / "harness_example-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {place}" for name, place in project["entry-points"]["harness.tasks"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[harness.tasks]", *lines, ""]))
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

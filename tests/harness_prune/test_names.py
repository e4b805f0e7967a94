"""A file or folder of the user's that hides a package of ours is said in one line, by every way in."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness_prune.names import PACKAGES, hidden

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ("-c", "import sys; from harness_prune.command import main; sys.argv[0] = 'harness'; sys.exit(main())")


def run(folder: Path, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Python in `folder` with PYTHONPATH=.:path, as ML projects set it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, str(ROOT))))}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def write(folder: Path, name: str) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("")


def test_all_packages_here_are_ours() -> None:
    assert hidden() is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["tasks.py", "reports/__init__.py", "pruning.py", "recovery/__init__.py", "harness.py"]
)
def test_the_command_says_in_one_line_what_hides_a_package(name: str, tmp_path: Path) -> None:
    write(tmp_path, name)
    done = run(tmp_path, "-P", *SCRIPT, "tasks", path=".")
    package = name.partition("/")[0].partition(".")[0]
    assert package in PACKAGES
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and f"hides harness's package {package}; unset PYTHONPATH" in done.stderr
    assert done.stderr.startswith("error: ") and name.removesuffix("/__init__.py") in done.stderr


@pytest.mark.slow
def test_so_does_the_package_run_with_m_and_python_says_it_in_an_import_error(tmp_path: Path) -> None:
    for name in ("tasks.py", "reports/__init__.py", "pruning.py"):
        write(tmp_path, name)
    with_m = run(tmp_path, "-m", "harness", "tasks")  # -m looks in the working folder first
    assert with_m.returncode == 2 and with_m.stderr.count("\n") == 1
    assert f"error: {tmp_path / 'pruning.py'} hides harness's package pruning" in with_m.stderr
    imported = run(tmp_path, "-c", "import harness", path=".")
    assert imported.stderr.splitlines()[-1].startswith("ImportError: ") and "hides harness's package" in imported.stderr


@pytest.mark.slow
def test_a_folder_that_hides_nothing_is_no_reason_and_children_do_not_look_into_it(tmp_path: Path) -> None:
    """Without PYTHONPATH the console script sees no tasks.py of the working folder, nor do its processes."""
    for name in ("tasks.py", "reports/notes.txt"):
        write(tmp_path, name)
    done = run(tmp_path, "-P", *SCRIPT, "--version")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("harness, version")
    code = "import os, harness.cli.main as m; m.main = lambda: print(os.environ['PYTHONSAFEPATH']); "
    assert run(tmp_path, "-P", "-c", f"{code}from harness_prune.command import main; main()").stdout == "1\n"

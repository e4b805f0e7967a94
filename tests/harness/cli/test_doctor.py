"""The doctor sees what is here, and what is taken away from it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli import doctor
from harness.cli.doctor import Finding, examine
from tasks.sandbox import confinement


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine()}


def test_here_a_run_could_go() -> None:
    found = findings()
    assert not [finding for finding in found.values() if finding.verdict == "missing"]
    assert "torch" in found["packages"].found and found["engine"].found.startswith("vLLM ")
    assert found["sandbox"].found.startswith("mode ")
    assert confinement().program in found["sandbox"].found


def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name in ("vllm", "trl", "mlflow") else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path / "none"))
    found = findings()
    assert found["packages"].verdict == "missing" and "pip install trl" in found["packages"].todo
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

"""The doctor sees what is here, and what is taken away from it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from harness.cli.doctor import Finding, examine


def findings() -> dict[str, Finding]:
    return {finding.what: finding for finding in examine()}


def test_here_a_run_could_go() -> None:
    found = findings()
    assert not [finding for finding in found.values() if finding.verdict == "missing"]
    assert "torch" in found["packages"].found and found["engine"].found.startswith("vLLM ")
    assert found["sandbox"].found.startswith("mode ")


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

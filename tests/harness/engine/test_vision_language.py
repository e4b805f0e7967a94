"""Vision-language models whose text model was pruned, on stock vLLM."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core.errors import MeasurementError
from harness.engine.vllm_engine import check_libraries
from pruning.checkpoint import open_model
from pruning.families import FAMILIES
from pruning.plan_file import save_plan
from tests.support.models import build_model
from tests.support.pruned import plan_for

TOWERS = [name for name, family in FAMILIES.items() if family.tower]
SERVED = [name if name == "gemma3" else pytest.param(name, marks=pytest.mark.thorough) for name in TOWERS]
# transformers and vLLM import these names for images, which no test here has; a CPU has no torchvision (ADR 2)
NAMES = {
    "__init__.py": "__version__ = '0.28.0'",
    "io.py": "ImageReadMode = decode_image = None",
    "transforms/__init__.py": (
        "import enum\n"
        "KINDS = 'NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS'\n"
        "InterpolationMode = enum.Enum('InterpolationMode', KINDS)"
    ),
    "transforms/functional.py": "pil_to_tensor = None",
    "transforms/v2/__init__.py": "",
    "transforms/v2/functional.py": "from torchvision.transforms import InterpolationMode",
}


def python_path(folder: Path) -> str:
    """The clone, and names for torchvision where it is not installed."""
    clone = str(Path(__file__).parents[3])
    if importlib.util.find_spec("torchvision"):
        return clone
    for name, text in NAMES.items():
        file = folder / "torchvision" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return f"{clone}:{folder}"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("model_type", SERVED)
def test_stock_vllm_gives_the_tokens_of_the_masked_model(model_type: str, tmp_path: Path) -> None:
    """By `harness prune --verify`, without our plugin."""
    dense = build_model(model_type, tmp_path / "dense", tie=True)
    plan = tmp_path / "plan.safetensors"
    save_plan(plan_for(dense, width=64), plan)
    command = [sys.executable, "-m", "harness.cli.main", "prune", str(dense), str(plan)]
    found = subprocess.run(
        [*command, "--out", str(tmp_path / "pruned"), "--verify"],
        env={**os.environ, "PYTHONPATH": python_path(tmp_path / "names"), "VLLM_PLUGINS": ""},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    assert "'differing': 0" in found.stdout


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
@pytest.mark.parametrize("model_type", TOWERS)
def test_a_library_that_vllm_needs_is_named_before_it_starts(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match=f"vLLM needs torchvision for {model_type}, a vision-language model"):
        check_libraries(open_model(build_model(model_type, tmp_path / "m")))

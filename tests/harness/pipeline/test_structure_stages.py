"""Score, plan and prune of KV groups and layers on the embedded model, as commands call them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import harness
from harness.core.errors import UsageError
from harness.pipeline.run_json import variant
from pruning.checkpoint import open_model
from pruning.masked import load_masked
from pruning.plan_file import load_plan
from tests.support.models import TINY_MATH, plain

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("structure", "metric", "kv_heads", "layers", "ratio"),
    [("kv_group", "best", 1, 4, 0.5), pytest.param("layer", "rms", 2, 3, 0.25, marks=pytest.mark.long)],
)
def test_from_scores_to_a_checkpoint(
    structure: str, metric: str, kv_heads: int, layers: int, ratio: float, tmp_path: Path
) -> None:
    """The export in transformers is the dense model with what was removed silent and the columns re-fitted."""
    scores = harness.score(
        metrics=(metric,), out=tmp_path / "s", structure=structure, calibration_samples=12, threads=1
    )
    assert scores.structure == structure and scores.scores["rms"].shape == (4, 2 if structure == "kv_group" else 1)
    plan = harness.plan(tmp_path / "s", ratio=ratio, out=tmp_path / "plan.safetensors", threads=1)
    assert (plan.structure, plan.compensated) == (structure, metric == "best")
    made = harness.prune("tiny-math", tmp_path / "plan.safetensors", out=tmp_path / "made")
    assert (made.shape.num_key_value_heads, made.shape.num_hidden_layers) == (kv_heads, layers)
    ids = torch.randint(2, 1000, (2, 24), generator=torch.Generator().manual_seed(0))
    saved = load_plan(tmp_path / "plan.safetensors")
    with torch.no_grad():
        masked = load_masked(open_model(TINY_MATH), saved, tmp_path / "plan.safetensors", torch.float32)(ids).logits
        found = plain(made.path, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(found, masked, rtol=1e-4, atol=1e-3)
    row = variant("x", made, None)
    assert (row.structure, row.ratio_requested, row.parameters) == (structure, ratio, made.parameters)
    assert json.loads((made.path / "pruning.json").read_text())["steps"][0]["structure"] == structure


def test_scores_of_groups_say_what_they_are_of_and_what_they_lack(tmp_path: Path) -> None:
    harness.score(metrics=("smd",), out=tmp_path / "s", structure="kv_group", calibration_samples=4, threads=1)
    with safe_open(tmp_path / "s", "np") as file:
        assert {key: file.metadata()[key] for key in ("structure", "intermediate_size")} == {
            "structure": "kv_group",
            "intermediate_size": "640",
        }
        assert not any(key.endswith((".wifv", ".lape", ".ratio-freq")) for key in file.keys())  # noqa: SIM118
    with pytest.raises(UsageError, match="not 'obs'"):
        harness.plan(tmp_path / "s", ratio=0.5, out=tmp_path / "plan.safetensors")
    with pytest.raises(UsageError, match="wifv cannot score a KV group"):
        harness.plan(tmp_path / "s", ratio=0.5, metric="wifv", out=tmp_path / "plan.safetensors")

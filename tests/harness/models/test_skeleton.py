"""What transformers would refuse is refused before any work, also by a dry run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from harness.core.errors import UnsupportedModelError
from harness.models.skeleton import check_buildable
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.cli import harness
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import ragged_plan

pytestmark = pytest.mark.slow


def with_config(folder: Path, changes: dict[str, Any]) -> Path:
    shutil.copytree(TINY_MATH, folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_act": "foo"}, "KeyError: 'foo'"),
        ({"rope_parameters": {"rope_type": "nope"}}, "KeyError: 'nope'"),
        ({"rms_norm_eps": "1e-6"}, "field 'rms_norm_eps': TypeError: "),
        ({"dtype": "float9"}, "no attribute 'float9'"),
        ({"eos_token_id": "x"}, "field 'eos_token_id': TypeError: "),
        ({"layer_types": ["full_attention"]}, "validator 'validate_layer_type': ValueError: "),
    ],
)
def test_a_setting_that_transformers_refuses_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model = open_model(with_config(tmp_path / "m", changes))
    with pytest.raises(UnsupportedModelError, match=r"m/config\.json: transformers cannot build .*get the model") as e:
        check_buildable(model)
    assert reason in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "command",
    [
        "run --model {} --task mini_math --dry-run",
        "sweep --model {} --task mini_math --dry-run",
        "recover {} --task mini_math --dry-run",
        "run --model {} --task mini_math --out r",
        "score {} --task mini_math --out s",
        "eval {} --task mini_math --out e",
        "bench {} --task mini_math --out b",
    ],
)
def test_every_command_refuses_it_before_any_work(command: str, tmp_path: Path) -> None:
    with_config(tmp_path / "m", {"rms_norm_eps": "1e-6"})
    found = harness(*command.format("m").split(), cwd=tmp_path)
    assert found.returncode == 1 and len(found.stderr.strip().splitlines()) == 1
    assert "m/config.json: transformers cannot build this model" in found.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_settings_of_a_quantisation_without_a_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="quant_method"):
        check_buildable(open_model(with_config(tmp_path / "m", {"quantization_config": {}})))


@pytest.mark.parametrize(("model_type", "part"), [("gemma3", "multi_modal_projector"), ("qwen2_5_vl", "visual.merger")])
def test_what_joins_the_two_towers_has_to_be_there(model_type: str, part: str, tmp_path: Path) -> None:
    folder = build_model(model_type, tmp_path / "m")
    check_buildable(open_model(folder))
    weights = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if part not in name}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=rf"has no model\.{part}\S+ \(\d tensors missing\)"):
        check_buildable(open_model(folder))


@pytest.mark.parametrize("layers", [10**9, "two", 0])
def test_a_vision_tower_that_would_not_end_is_refused(layers: object, tmp_path: Path) -> None:
    folder = build_model("gemma3", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = layers
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="vision_config has no usable num_hidden_layers"):
        check_buildable(open_model(folder))


def test_a_model_with_a_width_of_its_own_in_every_layer_is_fine(random_model: Path, tmp_path: Path) -> None:
    check_buildable(export(open_model(random_model), ragged_plan(random_model), tmp_path / "ragged"))

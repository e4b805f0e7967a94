"""Plans, scores and columns of others: each value is checked when the file is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from harness.core.errors import UsageError
from pruning import score_file
from pruning.checkpoint import open_model
from pruning.plan_file import load_plan, save_plan
from tests.support.models import TINY_MATH
from tests.support.pruned import plan_for

Arrays = dict[str, np.ndarray]
Meta = dict[str, str]
Change = Callable[[Arrays, Meta], Any]
INTS = np.arange(4, dtype=np.int32)


def changed(file: Path, change: Change) -> Path:
    with safe_open(file, framework="np") as opened:
        arrays, meta = {name: opened.get_tensor(name) for name in opened.keys()}, dict(opened.metadata())  # noqa: SIM118
    change(arrays, meta)
    save_file(arrays, file, meta)
    return file


def put(name: str, value: np.ndarray) -> Change:
    return lambda arrays, _: arrays.update({name: value})


def say(name: str, value: str) -> Change:
    return lambda _, meta: meta.update({name: value})


PLANS: list[tuple[Change, str]] = [
    *((say("layers", value), "layers") for value in ("0", "-1", "x", "", "1000000", "1e3", "9" * 5000)),
    *((say("intermediate_size", value), "intermediate_size") for value in ("0", "-8", "1000000000000000", "nan")),
    *((say("ratio", value), "ratio") for value in ("nan", "inf", "-inf", "-0.1", "1", "1.5", "x")),
    *((say("protect", value), "protect") for value in ("nan", "2")),
    *((say("seed", value), "seed") for value in ("-1", "1.5", "9" * 50)),
    *((say("alignment", value), "alignment") for value in ("0", "-1")),
    (say("method", "best of all"), "method"),
    (say("tokens", "some"), "tokens"),
    (say("allocation", "fair"), "allocation"),
    (say("compensated", "perhaps"), "compensated"),
    (lambda _, meta: meta.pop("model"), "no model"),
    (lambda arrays, _: arrays.pop("layers.1.keep"), r"no layers\.1\.keep"),
    (put("layers.7.keep", INTS), r"layers\.7\.keep"),
    (put("layers.1.keep", INTS.astype(np.float32)), "not a list of integers"),
    (put("layers.1.keep", INTS > 1), "not a list of integers"),
    (put("layers.1.keep", INTS.reshape(2, 2)), "not a list of integers"),
    (put("layers.1.keep", np.array(3, np.int32)), "not a list of integers"),
    (put("layers.1.keep", INTS[:0]), "not sorted, unique"),
    (put("layers.1.keep", INTS[::-1].copy()), "not sorted, unique"),
    (put("layers.1.keep", INTS[::-1].astype(np.uint32)), "not sorted, unique"),  # whose differences are positive
    (put("layers.1.keep", INTS // 2), "not sorted, unique"),
    (put("layers.1.keep", INTS - 1), "not sorted, unique"),
    (put("layers.1.keep", np.array([1, 2**40])), "not sorted, unique"),
]


@pytest.mark.parametrize(("change", "message"), PLANS)
def test_a_plan_that_is_none_is_refused_in_one_line(
    change: Change, message: str, random_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "plan.safetensors"
    save_plan(plan_for(random_model), file)
    assert load_plan(file).widths == plan_for(random_model).widths
    with pytest.raises(UsageError, match=message) as refused:
        load_plan(changed(file, change))
    assert str(file) in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scores") / "s.safetensors"
    names = [f"layers.{layer}.{name}" for layer in range(3) for name in ("smd", "rms", "moments.target.mean")]
    meta = {"model": "m", "model_hash": "h", "tokens": "all", "calibration_hash": "c", "layers": "3"}
    meta |= {"general_weight": "0.0", "n_target": "8", "n_distractor": "16", "stability": "{}"}
    save_file({name: np.arange(6, dtype=np.float32) for name in names}, file, meta)
    return file


SIX = np.arange(6, dtype=np.float32)
SCORES: list[tuple[Change, str]] = [
    *((say("layers", value), "layers") for value in ("x", "0", "-2", "1000000", "2", "4")),
    *((say("general_weight", value), "general_weight") for value in ("nan", "2")),
    *((say("n_target", value), "n_target") for value in ("-1", "x")),
    (say("tokens", "some"), "tokens"),
    (lambda _, meta: meta.pop("calibration_hash"), "no calibration_hash"),
    (lambda arrays, _: arrays.pop("layers.1.smd"), r"layers\.1\.smd does not fit"),
    (put("odd", SIX), "does not fit"),
    (put("layers.1.smd", SIX[:5]), "not one number for each neuron"),
    (put("layers.1.smd", SIX.reshape(2, 3)), "not one number for each neuron"),
    (put("layers.0.rms", np.array(1.0, np.float32)), "not one number for each neuron"),
    (put("layers.1.smd", SIX > 2), "not one number for each neuron"),
    (put("layers.1.smd", SIX.astype(np.int32)), "not one number for each neuron"),
    (put("layers.1.smd", np.full(6, np.nan, np.float32)), "not finite"),
    (put("layers.1.smd", np.full(6, np.inf, np.float32)), "not finite"),
]


@pytest.mark.parametrize(("change", "message"), SCORES)
def test_scores_that_are_none_are_refused_in_one_line(
    change: Change, message: str, scores: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(scores, tmp_path / "scores.safetensors"))
    assert set(score_file.load(file).scores) == {"rms", "smd"}
    with pytest.raises(UsageError, match=message) as refused:
        score_file.load(changed(file, change))
    assert str(file) in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 400


def test_an_adapter_is_no_model_and_none_beside_one(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"adapter is a LoRA adapter of org/base; merge it first"):
        open_model(tmp_path / "adapter")
    shutil.copytree(TINY_MATH, tmp_path / "model")
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"holds adapter_config\.json beside a model; remove it, or merge it"):
        open_model(tmp_path / "model")

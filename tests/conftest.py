"""Tiny random models of every family, built once, on disk as a user's would be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import build_model

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random qwen2 model in several shards."""
    return build_model("qwen2", tmp_path_factory.mktemp("models") / "qwen2", shard_size="200KB")


@pytest.fixture()
def edited_config(random_model: Path, tmp_path: Path) -> Any:
    """A function that copies the model's config with some values changed, for models that must be refused."""

    def edit(**changes: Any) -> Path:
        config = json.loads((random_model / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        return tmp_path

    return edit


@pytest.fixture()
def make_job(tmp_path: Path, random_model: Path) -> Callable[..., Any]:
    """A function that makes a job in a folder of its own; keyword arguments change the recipe."""

    def make(name: str = "job", model: Path = random_model, teacher: Path | None = None, **changes: Any) -> Any:
        from recovery.trainer import Job
        from tests.support.training import RECIPE, rows

        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
        return Job(folder=tmp_path / name, model=model, data=data, recipe=replace(RECIPE, **changes), teacher=teacher)

    return make


@pytest.fixture()
def ragged_model(random_model: Path, tmp_path: Path) -> Path:
    """The random model with a width of its own in every layer."""
    from pruning.export import export
    from tests.support.pruned import ragged_plan

    export(random_model, ragged_plan(random_model), tmp_path / "ragged")
    return tmp_path / "ragged"

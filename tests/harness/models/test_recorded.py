"""A model that a file names is found as what it was, or not at all: nothing is downloaded in its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest

from harness.core.errors import UsageError
from harness.core.types.model import ModelKind
from harness.models.recorded import locate_given, locate_recorded
from harness.models.registry import locate, model_id, model_kind
from tests.support.models import TINY_MATH

PRINT = locate("tiny-math", "math").fingerprint


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the Hub; it has nothing."""
    names: list[str] = []

    def download(repository: str, local_files_only: bool = False, **_: object) -> str:
        if not local_files_only:
            names.append(repository)
        raise OSError("not there")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return names


@pytest.mark.parametrize(
    ("name", "identity", "kind"),
    [
        ("org/model", "{here}/org/model", "folder"),
        ("./org/../org/model", "{here}/org/model", "folder"),
        ("link", "{here}/link", "folder"),
        ("org/model/.", "{here}/org/model", "folder"),
        ("model.gguf", "{here}/model.gguf", "file"),
        ("tiny-math", "tiny-math", "alias"),
        ("qwen-7b", "Qwen/Qwen2.5-Math-7B-Instruct", "hub"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "hub"),
    ],
)
def test_a_name_is_recorded_with_its_kind(name: str, identity: str, kind: str, tmp_path: Path) -> None:
    Path("org/model").mkdir(parents=True)
    Path("link").symlink_to("org/model")
    Path("model.gguf").write_text("x")
    found = model_id(name, "math")
    assert (found, model_kind(found)) == (identity.format(here=tmp_path), kind)


def test_a_recorded_folder_is_found_from_anywhere(tmp_path: Path, asked: list[str]) -> None:
    shutil.copytree(TINY_MATH, "org/model")
    name = model_id("org/model", "math")
    found = locate_recorded(name, "folder", PRINT, "plan")
    assert found.path == tmp_path / "org" / "model" and asked == []
    with pytest.raises(UsageError, match="has other weights by now"):
        locate_recorded(name, "folder", "0" * 16, "plan")
    assert locate_recorded("tiny-math", "alias", PRINT, "plan").fingerprint == PRINT


@pytest.mark.parametrize(
    ("name", "kind", "match"),
    [
        ("/gone/org/model", "folder", "/gone/org/model, which plan was made from, is gone"),
        ("/gone/model.gguf", "file", "/gone/model.gguf, which plan was made from, is gone"),
        ("/gone/org/model", "unknown", "/gone/org/model, which plan was made from, is gone"),
        ("org/model", "folder", "org/model, which plan was made from, is gone"),
        ("org/model", "unknown", "older version.*neither is on this machine"),
        ("models/x/y", "unknown", "older version"),
    ],
)
def test_what_is_gone_is_not_looked_for_on_the_hub(name: str, kind: ModelKind, match: str, asked: list[str]) -> None:
    with pytest.raises(UsageError, match=match):
        locate_recorded(name, kind, PRINT, "plan")
    assert asked == []


def test_a_model_of_the_hub_is_asked_for_there(asked: list[str]) -> None:
    with pytest.raises(UsageError, match="org/model cannot be downloaded"):
        locate_recorded("org/model", "hub", PRINT, "plan")
    assert asked == ["org/model"]


def test_a_relative_folder_of_an_older_version_is_found_from_where_it_was(asked: list[str]) -> None:
    shutil.copytree(TINY_MATH, "org/model")
    assert locate_recorded("org/model", "unknown", PRINT, "plan").fingerprint == PRINT and asked == []


def test_the_hub_is_not_asked_for_the_folder_of_a_plan_that_is_gone(asked: list[str], tmp_path: Path) -> None:
    shutil.copytree(TINY_MATH, "org/model")
    name = model_id("org/model", "math")
    assert locate_given("org/model", name, "folder").path == tmp_path / "org" / "model"
    Path("org").rename("moved")
    with pytest.raises(UsageError, match=rf"^org/model is gone; the plan was made from {name}: give the place"):
        locate_given("org/model", name, "folder")
    assert asked == [] and locate_given("moved/model", name, "folder").fingerprint == PRINT
    with pytest.raises(UsageError, match="other/model cannot be downloaded"):
        locate_given("other/model", name, "folder")  # a copy on the Hub may be meant
    assert asked == ["other/model"]

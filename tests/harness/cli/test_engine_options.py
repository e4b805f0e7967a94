"""Options of every command that starts an engine, and what is refused before one starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import UsageError

ENGINES = (
    "run",
    "sweep",
    "recover",
    "dissociate",
    "score",
    "prune",
    "eval",
    "bench",
    "serve",
    "chat",
    "plan",
    "vocabulary",
)  # start one, or may


@pytest.mark.parametrize("name", ENGINES)
def test_every_command_with_an_engine_takes_its_gpus_and_vllms_own_options(name: str) -> None:
    options = {option.name: option for option in cli.commands[name].params}
    assert options["tensor_parallel"].opts == ["--tensor-parallel"] and options["engine_arg"].opts == ["--engine-arg"]
    assert options["engine_arg"].multiple


@pytest.mark.parametrize(
    "command",
    [
        ("run", "--dry-run"),
        ("sweep", "--dry-run"),
        ("recover", "tiny-math", "--dry-run"),
        ("dissociate", "tiny-math", "--dry-run"),
        ("eval", "tiny-math"),
        ("bench", "tiny-math"),
        ("serve", "tiny-math"),
        ("chat", "tiny-math", "tiny-math"),
        ("score", "tiny-math", "--out", "scores"),
        ("plan", "tiny-math", "--predict"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--engine-arg", "model=x"), "--engine-arg: model is set already"),
        (("--engine-arg", "block_size=32", "--engine-arg", "block_siz=1"), "did you mean block_size?"),
        (("--tensor-parallel", "2"), "GPUs and none is here"),
    ],
    ids=["ours", "unknown", "gpus"],
)
def test_an_engine_that_could_not_start_is_refused_before_any_work(
    command: tuple[str, ...], option: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    made = CliRunner().invoke(cli, [*command, *option])
    assert isinstance(made.exception, UsageError) and said in str(made.exception)
    assert not list(tmp_path.iterdir())

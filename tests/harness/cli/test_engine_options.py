"""Options of every command that starts an engine, and what is refused before one starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.config.engine_options import parse_engine_options
from harness.core.errors import UsageError
from harness.engine.memory_budget import EngineSettings
from harness.engine.vllm_engine import check_options
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH

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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("attention_backend=FOO", "Unknown attention backend: 'FOO'"),
        ("kv_cache_dtype=xx", "cache_dtype Input should be 'auto'"),
        ("max_num_seqs=9000,max_num_batched_tokens=4096", "must be greater than or equal to max_num_seqs"),
    ],
)
def test_what_vllm_would_refuse_is_refused_before_the_scoring(options: str, says: str, tmp_path: Path) -> None:
    """Real vLLM's own checks of its options, without an engine."""
    model = open_model(TINY_MATH)
    check_options(model, EngineSettings(options=parse_engine_options("block_size=32,enforce_eager=true")))
    with pytest.raises(UsageError, match=says):
        check_options(model, EngineSettings(options=parse_engine_options(options)))
    refused = CliRunner().invoke(cli, ["run", "--engine-arg", options, "--out", str(tmp_path / "run")])
    assert isinstance(refused.exception, UsageError) and says in str(refused.exception)
    assert not (tmp_path / "run").exists()

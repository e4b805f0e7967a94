"""The commands of one stage: what they take as typed, what they refuse, and what their help says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli.main import cli
from harness.core.errors import UsageError
from harness.pipeline import predict
from pruning.checkpoint import open_model
from tests.harness.cli.test_main import COMMANDS
from tests.support.cli import harness
from tests.support.models import build_model


def test_a_folder_with_the_name_of_an_alias_is_planned_where_it_is_typed_as_a_path(tmp_path: Path) -> None:
    made = open_model(build_model("llama", tmp_path / "qwen-7b"))
    device = ("--device", "24GiB", "--json")
    folder = json.loads(harness("plan", "./qwen-7b", *device, cwd=tmp_path).stdout)
    alias = json.loads(harness("plan", "qwen-7b", *device, cwd=tmp_path).stdout)
    assert folder["rows"][0]["parameters"] == made.parameters < 10**6 < alias["rows"][0]["parameters"]


@pytest.mark.parametrize(
    ("option", "value"), [("--allocation", "global"), ("--metric", "S"), ("--seed", "7"), ("--method", "random")]
)
def test_sizes_on_a_device_refuse_what_does_not_change_them(option: str, value: str) -> None:
    found = harness("plan", "qwen-7b", "--device", "24GiB", option, value)
    assert found.returncode == 2 and f"{option} does not change the sizes that --device shows" in found.stderr


def test_threads_are_for_the_comparison_of_a_checkpoint() -> None:
    found = harness("prune", "m", "p", "--out", "o", "--threads", "2")
    assert found.returncode == 2 and "--threads is a setting of --verify" in found.stderr


def test_every_command_that_reads_the_data_of_tasks_can_be_told_to_trust_it(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {command: {option.name for option in made.params} for command, made in COMMANDS.items()}
    reading = {command: names for command, names in options.items() if "include_path" in names}
    assert {("bench",), ("plan",), ("run",)} <= reading.keys()
    assert all("trust_data" in names for names in reading.values())

    def told(*_: object) -> None:
        raise UsageError(f"trusted: {os.environ.get('HARNESS_TRUST_DATA')}")

    monkeypatch.setattr(predict, "predict", told)
    assert "trusted: 1" in harness("plan", "tiny-math", "--predict", "--trust-data").stderr
    assert "trusted: 1" not in harness("plan", "tiny-math", "--predict").stderr


def test_the_help_of_score_says_what_is_computed_by_default() -> None:
    page = CliRunner().invoke(cli, ["score", "--help"], terminal_width=300).output
    assert "by default the scores of `best` as well" in " ".join(page.split())
    metric = next(option for option in COMMANDS["score",].params if option.name == "metric")
    assert metric.help and metric.help.endswith("Default: best.") and "--method" not in metric.help

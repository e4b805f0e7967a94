"""benchmarks/peers.py: which sizes are equal, which arms run, which rows are made again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click
import pytest

from benchmarks import peer_tools
from benchmarks.peers import ARMS, TOLERANCE, Subject, add_row, levels, nearest, started
from harness.models import registry
from harness.pipeline import scoring
from pruning.checkpoint import open_model
from tasks.registry import find_task
from tests.support.models import TINY_MATH


def layer_parameters() -> int:
    """Of tiny-math's first layer, counted in its file."""
    entries = [entry for shard in open_model(TINY_MATH).shards for entry in shard.entries]
    return sum(math.prod(entry.shape) for entry in entries if ".layers.0." in entry.name)


def test_levels_are_the_sizes_without_so_many_layers() -> None:
    model = open_model(TINY_MATH)
    found = levels(model.shape, (1, 2), ())
    assert found == {f"layer {n}": model.parameters - n * layer_parameters() for n in (1, 2)}


@pytest.mark.parametrize("removed", [1, 2])
def test_a_width_has_the_parameters_of_fewer_layers_to_a_neuron(removed: int) -> None:
    model = open_model(TINY_MATH)
    wanted = model.parameters - removed * layer_parameters()
    neuron = 3 * model.config["hidden_size"] * model.config["num_hidden_layers"]  # a row, a row and a column
    width = nearest("neuron", model.shape, wanted)
    assert width is not None
    exact = model.config["intermediate_size"] - removed * layer_parameters() / neuron
    assert abs(width - exact) <= 0.5
    assert nearest("layer", model.shape, wanted) == model.config["num_hidden_layers"] - removed


def test_a_structure_that_has_no_such_size_is_left_out() -> None:
    """Half of tiny-math's attention is less than one of its layers."""
    shape = open_model(TINY_MATH).shape
    (group,) = levels(shape, (), (1,)).values()
    (layer,) = levels(shape, (1,), ()).values()
    assert group - layer > 2 * TOLERANCE * shape.parameters
    assert nearest("kv_group", shape, group) == 1
    assert nearest("kv_group", shape, layer) is nearest("layer", shape, group) is None


def test_the_depth_arm_has_exactly_the_parameters_of_its_level(tmp_path: Path) -> None:
    model = registry.locate("tiny-math", "math")
    calibration = scoring.calibrate(model, "tiny-math", find_task("mini_math"), scoring.CalibrationRequest(2, "all"))
    smaller = ARMS["layer"].make(Subject(model, calibration, 1, tmp_path), 3, tmp_path / "arm")
    assert smaller.shape.num_hidden_layers == 3
    assert smaller.parameters == model.parameters - layer_parameters()


def test_arms_of_a_tool_that_is_not_there_are_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peer_tools, "TOOLS", {"no_such_module": "no-such-tool==1", "json": "json==1"})
    arms = {"ours": None, "theirs": "no_such_module", "theirs too": "no_such_module", "there": "json"}
    assert peer_tools.without_missing(arms, ["ours", "theirs", "there"]) == ["ours", "there"]
    (line,) = capsys.readouterr().err.splitlines()
    assert "no-such-tool==1 is not installed" in line and "theirs;" in line


def test_rows_that_are_there_are_kept_and_those_of_other_settings_refused(tmp_path: Path) -> None:
    out, settings = tmp_path / "peers.json", {"model": "x", "samples": 2}
    for value in (1, 2):
        document = started(out, settings)
        add_row(document, out, "layer 1", "best", lambda value=value: {"task": [value]})  # type: ignore[misc]
        add_row(document, out, f"layer {value + 1}", "best", lambda: {"task": [3]})
    rows = [(row["level"], row["task"]) for row in json.loads(out.read_text(encoding="utf-8"))["rows"]]
    assert rows == [("layer 1", [1]), ("layer 2", [3]), ("layer 3", [3])]
    with pytest.raises(click.UsageError, match="rows of other settings"):
        started(out, {**settings, "samples": 3})

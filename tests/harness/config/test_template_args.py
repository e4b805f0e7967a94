"""Arguments of the chat template, from the command line, the environment and YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import config_yaml, load_config
from harness.core.errors import UsageError

ARGS = {"enable_thinking": False, "budget": 12, "share": 0.5, "effort": "low", "exact": "1.2.3"}
TEXT = "enable_thinking=false, budget=12,share=5e-1,effort = low,exact=1.2.3"


def test_every_place_gives_the_same_values_and_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("template_args: {enable_thinking: false, budget: 12, share: 0.5, effort: low, exact: 1.2.3}\n")
    found = [load_config(None, {"template_args": given}) for given in (TEXT, TEXT.split(","), ARGS)]
    found.append(load_config(file, {}))
    monkeypatch.setenv("HARNESS_TEMPLATE_ARGS", TEXT)
    found.append(load_config(None, {}))
    for config in found:
        assert config.template_args == ARGS
        assert [type(value) for value in config.template_args.values()] == [bool, int, float, str, str]
    again = tmp_path / "again.yaml"
    again.write_text(config_yaml(found[0]))
    monkeypatch.delenv("HARNESS_TEMPLATE_ARGS")
    assert load_config(again, {}).template_args == ARGS


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("enable_thinking", "'enable_thinking' is not NAME=VALUE"),
        ("a=1,a=2", "a is given twice"),
        ("tokenize=false", "tokenize is set already"),
        ("add_generation_prompt=false", "add_generation_prompt is set already"),
        ({"messages": "x"}, "messages is set already"),
        ("eos_token=x", "eos_token is set already"),
        ("a-b=1", "'a-b' is not the name of a variable"),
        ("=1", "'' is not the name of a variable"),
        ({"a": [1]}, r"\[1\]"),
        (5, "5 is not a mapping"),
    ],
)
def test_what_cannot_be_an_argument_is_refused_with_its_option(given: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=rf"bad settings: --template-args.*{problem}"):
        load_config(None, {"template_args": given})

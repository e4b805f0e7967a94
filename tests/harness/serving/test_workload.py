"""The requests that are timed: in the form in which the task is evaluated."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.settings import load_config
from harness.models.tokenizer import load_tokenizer
from harness.serving.workload import make_workload
from pruning.checkpoint import open_model
from tasks.registry import find_task
from tests.support.chat import MAY_THINK, model_with

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("thinks", "end"), [(True, "<think>\n"), (False, "<think>\n\n</think>\n\n")])
def test_requests_take_the_arguments_of_the_chat_template(thinks: bool, end: str, tmp_path: Path) -> None:
    model = open_model(model_with(MAY_THINK, tmp_path / "m"))
    config = load_config(None, {"template_args": {"enable_thinking": thinks}, "concurrency": (2,)})
    tokenizer = load_tokenizer(model)
    prompts = make_workload(config, model, find_task("mini_math")).prompts
    assert len(prompts) == 4 and all(tokenizer.decode(p).endswith(f"assistant\n{end}") for p in prompts)

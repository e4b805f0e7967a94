"""Which file an error about a chat template names, also where nothing is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import UsageError
from harness.models.tokenizer import load_chat
from pruning.checkpoint import open_model
from tests.support.chat import MAY_THINK, PLAIN, model_with
from tests.support.cli import harness

pytestmark = pytest.mark.slow
BROKEN = "{% for m in messages %}{{ m.content }"


def in_settings(folder: Path, template: object) -> Path:
    """The template in tokenizer_config.json."""
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))
    return folder


def test_the_file_that_holds_the_template_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^\S+/a/chat_template\.jinja: the chat template fails on the turns user"):
        load_chat(open_model(model_with(BROKEN, tmp_path / "a")), {})
    for name, template in (("b", BROKEN), ("c", 5), ("d", [{"name": "tool_use", "template": PLAIN}])):
        with pytest.raises(UsageError, match=rf"^\S+/{name}/tokenizer_config\.json: the chat template fails"):
            load_chat(open_model(in_settings(model_with(PLAIN, tmp_path / name), template)), {})
    folder = model_with(PLAIN, tmp_path / "e")
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"^\S+/e/chat_template\.jinja is not UTF-8"):
        load_chat(open_model(folder), {})


def test_the_default_of_several_templates_is_used(tmp_path: Path) -> None:
    several = [{"name": "tool_use", "template": BROKEN}, {"name": "default", "template": PLAIN}]
    _, chat = load_chat(open_model(in_settings(model_with(PLAIN, tmp_path / "m"), several)), {})
    assert chat is not None and chat.prompt_end == "<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    "command",
    [
        "run --model {} --task mini_math --dry-run",
        "sweep --model {} --task mini_math --dry-run",
        "recover {} --task mini_math --dry-run",
        "score {} --task mini_math --metric smd --out s",
        "eval {} --task mini_math --out e",
        "bench {} --task mini_math --out b",
    ],
)
def test_every_command_refuses_a_broken_template_and_an_unused_argument_before_work(
    command: str, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    broken, may = model_with(BROKEN, tmp_path / "broken"), model_with(MAY_THINK, tmp_path / "may")
    found = harness(*command.format(broken).split(), cwd=work)
    assert found.returncode == 2 and len(found.stderr.strip().splitlines()) == 1
    assert f"{broken}/chat_template.jinja: the chat template fails" in found.stderr
    found = harness(*command.format(may).split(), "--template-args", "think=false", cwd=work)
    assert found.returncode == 2 and f"{may}/chat_template.jinja: the chat template does not use think" in found.stderr
    assert not list(work.iterdir())

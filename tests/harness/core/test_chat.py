"""Prompts in chat templates of the world: without a system turn, with reasoning, with arguments, broken."""

from __future__ import annotations

from typing import Any

import pytest

from harness.core.chat import ChatFormat, chat_format, notes, prompt_ids, prompt_text, without_system
from harness.core.errors import UsageError
from harness.core.types.calibration import Example
from tests.support import chat as templates

pytestmark = pytest.mark.slow
EXAMPLE = Example("Mia has 3 apples.", "#### 3", system="Be brief.")
JOINED = "<|im_start|>user\nBe brief.\n\nMia has 3 apples.<|im_end|>\n<|im_start|>assistant\n"


def opened(template: str, **arguments: Any) -> tuple[Any, ChatFormat]:
    tokenizer = templates.tokenizer_with(template)
    found = chat_format(tokenizer, arguments, "m/chat_template.jinja")
    assert found is not None
    return tokenizer, found


@pytest.mark.parametrize("template", [templates.REFUSES_SYSTEM, templates.DROPS_SYSTEM, templates.ALTERNATES])
def test_without_a_system_turn_its_text_stands_in_front_of_the_users(template: str) -> None:
    tokenizer, chat = opened(template)
    assert prompt_text(tokenizer, EXAMPLE, chat) == JOINED
    assert chat.summary.system_turn is False and "no system turn" in notes(vars(chat.summary))[0]
    shots = [{"role": "assistant", "content": "#### 3"}, {"role": "user", "content": "And now?"}]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Mia has 3 apples."}, *shots]
    assert chat.render(tokenizer, turns).startswith("<|im_start|>user\nBe brief.\n\nMia has 3 apples.<|im_end|>")


def test_a_system_turn_is_used_where_there_is_one() -> None:
    tokenizer, chat = opened(templates.PLAIN)
    assert prompt_text(tokenizer, EXAMPLE, chat).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    )
    assert chat.summary.system_turn is True and notes(vars(chat.summary)) == ()


def test_ids_are_those_of_transformers() -> None:
    tokenizer, chat = opened(templates.PLAIN)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Mia has 3 apples."}]
    expected = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert prompt_ids(tokenizer, EXAMPLE, chat) == expected
    assert prompt_ids(tokenizer, EXAMPLE, None) == tokenizer("Be brief.Mia has 3 apples.")["input_ids"]


def test_a_system_message_without_a_user_becomes_one_and_an_empty_one_goes() -> None:
    assert without_system([{"role": "system", "content": "s"}]) == [{"role": "user", "content": "s"}]
    user = {"role": "user", "content": "u"}
    assert without_system([{"role": "system", "content": " "}, user]) == [user]


def test_reasoning_is_found_and_switched_off_by_an_argument() -> None:
    for template in (templates.THINKS, templates.MAY_THINK):
        _, chat = opened(template)
        assert chat.summary.opens_reasoning == "<think>" and "<think>" in notes(vars(chat.summary))[0]
    tokenizer, chat = opened(templates.MAY_THINK, enable_thinking=False)
    assert prompt_text(tokenizer, EXAMPLE, chat).endswith("assistant\n<think>\n\n</think>\n\n")
    assert chat.summary.opens_reasoning is None and chat.summary.template_args == {"enable_thinking": False}
    assert notes(vars(chat.summary)) == ("template arguments: enable_thinking=False",)


def test_what_the_template_writes_before_an_answer_is_known_where_it_is_reasoning() -> None:
    found = {name: opened(getattr(templates, name))[1] for name in ("PLAIN", "THINKS", "OPENS_ITSELF")}
    assert {name: chat.before_answer for name, chat in found.items()} == {
        "PLAIN": "",
        "THINKS": "",  # its answers have no reasoning, though its prompts open some
        "OPENS_ITSELF": "<think>\n\n</think>\n\n",
    }
    assert opened(templates.OPENS_ITSELF, enable_thinking=False)[1].before_answer == ""


@pytest.mark.parametrize(
    "template",
    [
        templates.PLAIN,
        templates.PLAIN + "{# enable_thinking #}",
        templates.PLAIN + "{{ 'enable_thinking' }}",
        "{% set enable_thinking = true %}" + templates.PLAIN,
    ],
)
def test_an_argument_that_the_template_does_not_use_is_refused(template: str) -> None:
    with pytest.raises(UsageError, match=r"^m/chat_template\.jinja: the chat template does not use enable_thinking;"):
        opened(template, enable_thinking=False)


def test_transformers_own_statements_do_not_hide_an_argument() -> None:
    _, found = opened("{%- generation %}{{ effort }}{% endgeneration -%}" + templates.PLAIN, effort="low")
    assert found.template_args == {"effort": "low"}


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% for m in messages %}{{ m.content }", "line 1: TemplateSyntaxError"),
        ("{% think %}" + templates.PLAIN, "line 1: Encountered unknown tag 'think'"),
        (templates.PLAIN + "{{ missing() }}", "'missing' is undefined"),
        (templates.PLAIN + "{{ raise_exception('not\\nthis') }}", r"\(not\)"),
        (templates.PLAIN + "{{ strftime_now(x=1) }}", "TypeError"),
        ("{{ 'hello' }}", "leaves out the user's text"),
        (
            "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
            "leaves out the user's",
        ),
    ],
)
def test_a_broken_template_is_one_line_that_names_its_file(template: str, reason: str) -> None:
    with pytest.raises(UsageError, match=rf"^m/chat_template\.jinja: .*{reason}.*; mend the template") as seen:
        opened(template)
    assert "\n" not in str(seen.value) and "unexpected" not in str(seen.value)


def test_without_a_template_there_is_no_format_and_no_argument() -> None:
    tokenizer = templates.tokenizer_with("")
    assert chat_format(tokenizer, {}, "m") is None
    with pytest.raises(UsageError, match="m has no chat template, so --template-args changes nothing"):
        chat_format(tokenizer, {"enable_thinking": False}, "m")

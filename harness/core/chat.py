"""Prompts in a model's chat template: the same for calibration, training, evaluation and timing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.core.errors import UsageError, first_line
from harness.core.reasoning import ReasoningTags, ends_closed, left_open, mentioned
from harness.core.types.calibration import Example
from harness.core.types.chat import ChatSummary

Message = Mapping[str, str]
_USER, _SYSTEM, _ANSWER = "theusersprobe", "thesystemsprobe", "theanswersprobe"  # no template writes these itself
_MEND = "mend the template, or take the model's original one"
_GENERATION = re.compile(r"\{%[-+]?\s*(end)?generation\s*[-+]?%\}")  # transformers' own statement


@dataclass(frozen=True)
class ChatFormat:
    """How messages become a prompt.

    Attributes:
        template_args: Variables that are passed to the template.
        system_turn: Whether the template has a turn for a system message. Its text goes in front of the user's if not.
        prompt_end: What stands behind the user's text in a prompt.
        before_answer: What the template writes between a prompt and an answer, where it writes reasoning there.
        knows: The tags of reasoning that the template mentions.
        special_tags: Whether one of these is a special token, which a text is usually decoded without.
        source: What errors call the template.
    """

    template_args: Mapping[str, Any] = field(default_factory=dict)
    system_turn: bool = True
    prompt_end: str = ""
    before_answer: str = ""
    knows: tuple[ReasoningTags, ...] = ()
    special_tags: bool = False
    source: str = "the chat template"

    @property
    def summary(self) -> ChatSummary:
        """For run.json."""
        opened = left_open(self.prompt_end)
        return ChatSummary(dict(self.template_args), self.system_turn, opened.opening if opened else None)

    def render(
        self,
        tokenizer: Any,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The text of a chat.

        Args:
            tokenizer: A transformers tokenizer with a chat template.
            messages: {"role", "content"} of every turn.
            add_generation_prompt: Whether the assistant's next turn is begun.
            continue_final_message: Whether the last turn is left open.

        Raises:
            UsageError: The template refuses these turns.
        """
        turns = list(messages) if self.system_turn else without_system(messages)
        try:
            return str(
                tokenizer.apply_chat_template(
                    turns,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    **self.template_args,
                )
            )
        except Exception as error:  # a template can raise anything
            roles = ", ".join(str(turn["role"]) for turn in messages)
            raise UsageError(
                f"{self.source}: the chat template fails on the turns {roles} ({_reason(error)}); {_MEND}"
            ) from error


def _reason(error: Exception) -> str:
    """Jinja's message, with the line where it has one; some messages only say that something was not expected."""
    text, line = first_line(error), getattr(error, "lineno", None)
    what = f"{type(error).__name__}" if "unexpected" in text.lower() else text
    return f"line {line}: {what}" if line else what


def notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What is unusual about the prompts of a run, in words; `summary`: a ChatSummary as in run.json."""
    tag, args = summary["opens_reasoning"], summary["template_args"]
    given = ", ".join(f"{name}={value}" for name, value in args.items())
    return (
        *([f"template arguments: {given}"] if given else []),
        *([] if summary["system_turn"] else ["no system turn, so a system message stands in front of the user's text"]),
        *([f"prompts open {tag}, which is closed before answers that are given"] if tag else []),
    )


def without_system(messages: Sequence[Message]) -> list[Message]:
    """The turns with each system message in front of the user's next one, a blank line between."""
    turns: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting += [message["content"]] if message["content"].strip() else []
        elif message["role"] == "user" and waiting:
            turns.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            turns.append(message)
    return [*turns, {"role": "user", "content": "\n\n".join(waiting)}] if waiting else turns


def chat_format(tokenizer: Any, template_args: Mapping[str, Any], source: str) -> ChatFormat | None:
    """What a tokenizer's chat template can do, found by rendering short chats.

    Args:
        tokenizer: A transformers tokenizer.
        template_args: Variables to pass to the template.
        source: The file that holds the template, for errors.

    Returns:
        None where the tokenizer has no chat template.

    Raises:
        UsageError: The template fails on a plain question, leaves it out, or does not use one of `template_args`.
    """
    if not getattr(tokenizer, "chat_template", None):
        if template_args:
            raise UsageError(f"{source} has no chat template, so --template-args changes nothing; leave it out")
        return None
    plain = ChatFormat(template_args, source=source)
    prompt = plain.render(tokenizer, [{"role": "user", "content": _USER}])
    if _USER not in prompt:
        raise UsageError(f"{source}: the chat template leaves out the user's text; {_MEND}")
    template = str(tokenizer.get_chat_template())
    _check_used(template_args, template, source)
    knows = mentioned(template)
    return ChatFormat(
        template_args=template_args,
        system_turn=_has_system_turn(tokenizer, plain),
        prompt_end=prompt.rpartition(_USER)[2],
        before_answer=_before_answer(tokenizer, plain, prompt),
        knows=knows,
        special_tags=bool({tags.closing for tags in knows} & set(tokenizer.all_special_tokens)),
        source=source,
    )


def _has_system_turn(tokenizer: Any, plain: ChatFormat) -> bool:
    """False where the template refuses a system message, or drops it without a word."""
    turns = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": _USER}]
    try:
        found = plain.render(tokenizer, turns)
    except UsageError:
        return False
    return _SYSTEM in found and _USER in found


def _before_answer(tokenizer: Any, plain: ChatFormat, prompt: str) -> str:
    turns = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
    try:
        written, answer, _ = plain.render(tokenizer, turns, add_generation_prompt=False).partition(_ANSWER)
    except UsageError:
        return ""
    between = written.removeprefix(prompt) if answer and written.startswith(prompt) else ""
    return between if ends_closed(between) else ""


def _check_used(template_args: Mapping[str, Any], template: str, source: str) -> None:
    from jinja2 import Environment, meta

    parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", template))
    if unused := sorted(set(template_args) - meta.find_undeclared_variables(parsed)):
        raise UsageError(
            f"{source}: the chat template does not use {', '.join(unused)}; leave it out of --template-args"
        )


def prompt_text(tokenizer: Any, example: Example, chat: ChatFormat | None) -> str:
    """The prompt as the evaluation gives it to the model: in the chat template, or plain."""
    if chat is None:
        return "".join((example.system, *(text for _, text in example.shots), example.prompt))
    messages = [("system", example.system)] if example.system else []
    messages += [*example.shots, ("user", example.prompt)]
    return chat.render(tokenizer, [{"role": role, "content": text} for role, text in messages])


def prompt_ids(tokenizer: Any, example: Example, chat: ChatFormat | None) -> list[int]:
    """The token ids of `prompt_text`; a plain one begins with the tokenizer's own start token."""
    return list(tokenizer(prompt_text(tokenizer, example, chat), add_special_tokens=chat is None)["input_ids"])

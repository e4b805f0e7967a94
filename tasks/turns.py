"""Where an answer ends although the text goes on: at the end of the model's turn, and where it asks itself the next
question.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_ROLE = r"[ \t]*(?:user|assistant|system|model|tool|developer|ipython)\b"  # behind a token that opens a turn
_TURN = re.compile(
    r"<\|(?:endoftext|end_of_text|eot_id|eom_id|end|im_end|eot|eos|end_of_turn|endofturn|end_of_role|return"
    r"|END_OF_TURN_TOKEN)\|>"
    r"|</s>|<eos>|<end_of_turn>|<turn\|>|<｜end▁of▁sentence｜>|\[/?INST\]|</?\|?EOT\|?>"
    rf"|(?:<\|(?:im_start|turn)\|?>|<start_of_turn>)(?:{_ROLE})?"
    rf"|<\|(?:start_header_id|start_of_role)\|>(?:{_ROLE})?(?:<\|(?:end_header_id|end_of_role)\|>)?"
    r"|<\|end_header_id\|>|<\|(?:user|assistant|system|observation)\|>|<｜(?:User|Assistant)｜>"
    r"|<\|START_OF_TURN_TOKEN\|>(?:<\|[A-Z]{1,20}_TOKEN\|>)?"
)
_ASKED = (
    r"(?:(?:next|new|another|follow-?up)[ \t]{1,3})?"
    r"(?:question|problem|exercise|query|instruction|human|user|q|问题|問題|题目)"
)
_NUMBER = r"(?P<{}>[ \t]{{0,3}}(?:#|no\.?)?[ \t]{{0,3}}\d{{1,4}})?"
# at the start of a line, with a colon; a heading needs none
_QUESTION = re.compile(
    rf"^[ ]{{0,3}}(?:>[ ]?)?(?:\#{{1,6}}[ \t]{{0,3}})?[*_]{{0,3}}{_ASKED}{_NUMBER.format('a')}"
    r"(?:[*_]{0,3}[ \t]{0,3}[:：]|(?<=\d)[.)][*_]{0,3}[ \t])"
    rf"|^[ ]{{0,3}}(?:\#{{1,6}}[ \t]{{0,3}}[*_]{{0,3}}|[*_]{{2,3}}){_ASKED}{_NUMBER.format('b')}[*_.]{{0,3}}[ \t]*$",
    re.I | re.M,
)


@dataclass(frozen=True)
class Part:
    """A part of an answer that begins with a question, or at the answer's start. numbered: by a question with a number
    (Question 2:). last: it ends where the text ends.
    """

    text: str
    numbered: bool
    last: bool


def own_turn(text: str) -> str:
    """The first turn of a text that holds anything, without the tokens around it; the text where there is none."""
    return next((part for part in _TURN.split(text) if part.strip()), text)


def parts(text: str) -> Iterator[Part]:
    """The text cut before each line that asks a question, in order."""
    found = {m.start(): bool(m["a"] or m["b"]) for m in _QUESTION.finditer(text)}
    marks = [*{0: False, **found}.items()]
    ends = [start for start, _ in marks[1:]] + [len(text)]
    for (start, numbered), end in zip(marks, ends, strict=True):
        yield Part(text[start:end], numbered, end == len(text))

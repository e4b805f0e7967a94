"""What in a model's answer may be its program: the text without fences, tags, quotes and prompts of an interpreter.

The plain reading comes first. The others are for answers in which it holds no whole definition: they take away what
is no Python, and count only where a definition is left.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from tasks.definitions import defines
from tasks.source import parsed
from tasks.turns import own_turn

# special tokens, byte order mark, HTML around code
_NOISE = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|^\ufeff|</?(?:pre|code)>")
# behind the last line of code, or behind words
_LATE_FENCE = re.compile(r"(?<=[^\s`~])[ \t]*(`{3,}(?:[Pp]ython3?|py3?)?)[ \t]*$", re.M)
_ITEM = r"[ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)*"  # of a list
_FENCE = re.compile(rf"^{_ITEM}(?:`{{3,}}|~{{3,}})[ \t]*([\w+#.-]*)[^\n]*$", re.M)
_LANGUAGES = {"", "python", "python3", "py", "py3", "ipython"}
_CODE = re.compile(
    r"^(?:[ \t]+\S|(?:return|for|while|if|with|try|import|from|def|class|async|raise|pass|yield|lambda)\b[^.!?]*$"
    r"|[A-Za-z_][\w.\[\], ]*[+\-*/|&^%]?=[^=]|@\w)",
    re.M,
)
# with which code may go on behind something else on its line: prose that begins so does not go on so
_STATEMENT = (
    r"(?:import[ \t]+[A-Za-z_][\w.]*(?:[ \t]+as[ \t]+\w+)?[ \t]*(?:[,;#].*)?$|from[ \t]+[\w.]+[ \t]+import\b"
    r"|(?:async[ \t]+)?def[ \t]+\w+[ \t]*\((?:[^\n]*\)[ \t]*(?:->[^\n:]{1,80})?:|[ \t]*$)"
    r"|class[ \t]+\w+[ \t]*(?:\([^\n()]*\))?:|@\w[\w.]*(?:\([^\n]*\))?[ \t]*$)"
)
_FENCED_LINE = re.compile(
    rf"^({_ITEM}(?:`{{3,}}|~{{3,}}))[ \t]*((?:i?[Pp]ython3?|py3?)[ \t]+)?"
    rf"(?={_STATEMENT}|return\b|\w+[ \t]*=[ \t]*lambda\b)",
    re.M,
)
_KEYWORD = r"(?:if|elif|else|try|except|finally|for|while|with|def|class|async|match|case|lambda)\b"
_TAG = r"(?:\[/?\w{1,20}\]|</?\w{1,20}>)"
_LEAD = re.compile(  # "[PYTHON]", "The code is:", "### Response:", "**Answer:**"
    rf"^(?:[ \t]*{_TAG}+|(?:#{{2,6}}[ \t]+)?\**(?!{_KEYWORD})[A-Za-z][\w '(),-]{{0,60}}\**:\**)[ \t]*(?={_STATEMENT})",
    re.M,
)
_SPAN = re.compile(r"\s*`{1,2}(?!`)([^`]+)`{1,2}\s*")  # the whole text
_QUOTE = re.compile(r"^ {0,3}(?:>(?!>>) ?)+", re.M)
_PROMPT = re.compile(r"[ \t]*(?:>>>|\.\.\.:?|In ?\[\d{1,4}\]:)(?: |$)")
_STRING_FENCE = re.compile(r"^(?:'''|\"\"\")[ \t]*(?:python3?|py3?)?[ \t]*$", re.M)
_END_TAG = re.compile(r"(?:\[/[A-Za-z]{1,20}\]|</[A-Za-z]{1,20}>|\[DONE\])[ \t]*$", re.M)
_SPANS = re.compile(r"(?<!`)(`{1,3})(?!`)([^`]+)\1(?!`)")


def readings(text: str, entry_point: str) -> Iterator[str]:
    """What may be code in the answer, the most likely first.

    Args:
        text: a model's answer, with Unix line ends.
        entry_point: the function that was asked for.
    """
    text = _NOISE.sub("", own_turn(text))
    yield _code(text, entry_point)
    inner = _QUOTE.sub("", text)
    if inner != text:
        yield _code(inner, entry_point)
    loose = _loose(inner, entry_point)
    spans = "\n".join(span[2] for span in _SPANS.finditer(inner))
    for code in (_session(inner), _code(loose, entry_point), _loose(spans, entry_point)):
        if defines(code, entry_point):
            yield code


def is_code(text: str) -> bool:
    """Whether a line of the text looks like Python, although it may not parse."""
    return bool(_CODE.search(text))


def _code(text: str, entry_point: str) -> str:
    """What stands in Python fences, else the text."""
    text = _FENCED_LINE.sub(r"\1\2\n", _LATE_FENCE.sub(r"\n\1", text))
    if blocks := _fenced(text):
        plain = "\n".join(map(textwrap.dedent, blocks))  # in a list item they are indented as a whole
        return plain if defines(plain, entry_point) else "\n".join(blocks)
    text = span[1] if (span := _SPAN.fullmatch(text)) else text
    is_python = parsed(text) is not None  # with a heading, which is a comment
    if is_python and not _LEAD.match(text.lstrip("\n")):
        return text
    return _LEAD.sub("\n", text, count=int(is_python))


def _fenced(text: str) -> list[str]:
    """The Python blocks. The last may be open; the first may have been opened by the prompt, and begin with the
    text.
    """
    found: list[str] = []
    language, start = None, 0
    for match in _FENCE.finditer(text):
        if language is None and not found and not match[1] and is_code(text[: match.start()]):
            found.append(text[: match.start()])
        elif language is None:
            language, start = match[1].lower(), match.end() + 1
        else:
            found += [text[start : match.start()]] * (language in _LANGUAGES)
            language = None
    if language in _LANGUAGES:
        found.append(text[start:])
    return [block for block in found if block.strip()]


def _session(text: str) -> str:
    """What was typed at the prompts of an interpreter, without what it answered."""
    typed: list[str] = []
    goes_on = False  # a block without prompts, as some consoles show it
    for line in text.split("\n"):
        prompt = _PROMPT.match(line)
        if prompt or (goes_on and line.startswith((" ", "\t"))):
            typed.append(line[prompt.end() :] if prompt else line)
            goes_on = not prompt or line.rstrip().endswith(":")
        else:
            goes_on = False
    return "\n".join(typed)


def _loose(text: str, entry_point: str) -> str:
    """The text without tags at the ends of lines, and without words on the line before a definition."""
    name, words = re.escape(entry_point), r"^(?:#{2,6}[ \t]+)?[^\n\"'=#]{0,200}?"
    text = _END_TAG.sub("\n", _STRING_FENCE.sub("```", text))
    function = rf"(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b"
    text = re.sub(rf"{words}[^\s\"'=#](?<!\basync)[ \t]*(?={function})", "\n", text, flags=re.M)
    assignment = rf"{name}[ \t]*(?::[^=\n]{{1,80}})?=[ \t]*lambda\b"
    return re.sub(rf"{words}[:>\]*][ \t]*(?={assignment})", "\n", text, flags=re.M)

r"""Final answers of worked solutions: `\boxed{14}`, `#### 14`, `A: 14`, `The answer is 14`.

Only an answer that the text marks as one counts; the last number of a chain of thought is not an answer. No answer is
None, never a wrong parse. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from tasks.numbers import LONGEST, before_number, is_single, number_in
from tasks.turns import own_turn, parts

_LONGEST_TEXT = 200_000  # of its end: a final answer stands there
_BOXES = 16  # boxes that are examined, from the last one
# \x08 is what JSON makes of \b
_BOX = re.compile(r"(?:\\(?:[fF]?[bB]oxed|[fF]box|framebox)(?![A-Za-z])|(?<![\\A-Za-z])boxed(?= ?\{)|\x08oxed)[ \t]*")
_HASH = re.compile(r"(?<!#)#{4,6}(?!#)(?:[ \t]*\n\s*(?!#)([^\n]{1,400})|([^\n]{0,400}))")
_OPEN = r"(?:(?:\\\[|\\\(|\$\$|```\w{0,20}|\\begin\{[a-z*]{1,20}\})[ \t]*\n\s*)?"  # the number stands on the next line
_LINE = rf"(?:\n\s*)?{_OPEN}([^\n]{{1,400}})"
_ANSWER = r"(?:the[ \t]+)?(?:(?:final|correct)[ \t]+)?(?:answer|ans)"
_STATED = re.compile(
    rf"^[ \t>*_#-]{{0,40}}(?:{_ANSWER}[*_]*[ \t]*[:=：]|A[*_]*[ \t]*:)[*_ \t]*{_LINE}"
    rf"|^[ \t]{{0,40}}(?:\#{{1,6}}[ \t]*)?[*_]{{0,3}}{_ANSWER}[*_]{{0,3}}"
    rf"(?:(?<=\*\*)|(?<=__)|(?=[ \t]*\n))[ \t]*{_LINE}"
    rf"|\banswer is[*_]{{0,3}}[:：]?[*_ \t]*{_LINE}"
    r"|<(?:final_)?answer>([^<]{1,400})(?:</|\Z)"
    r"|[\"'](?:final[_ ]?|correct[_ ]?)?answer[\"']\s*:\s*"
    r"(?:\"([^\"\n]{1,400})\"|'([^'\n]{1,400})'|([^\s\"'][^\"'\n}\]]{0,400}))"
    rf"|(?:答案|答え|正解)(?:[*_]{{0,3}}(?:是|为|為|即|は)[*_]{{0,3}}[:：]?|[*_]{{0,3}}[ \t]?[:：=])[*_ \t]*{_LINE}",
    re.I | re.M,
)
# the last line may be an answer with fewer marks: ### 18, or words behind ####
_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*(\#{2,6})[ \t]*([^\n#]{1,400})\s*\Z")
_HEADING = re.compile(r"^(?:\d+[.)][ \t]+[A-Za-z*]|[*_]*(?:step|part|case|option|example|section|method)\b)", re.I)
_TEXT = re.compile(r"\\text\s*\{[^{}]*\}")
_BRACE = re.compile(r"\\.|[{}]", re.S)
_LABEL = re.compile(r"^(?:the\s+)?(?:(?:final|correct)\s+)?answer(?:\s+is)?\s*[:=：]?|^\s*\w+\s*=(?=\s*[-\d$\\])", re.I)
_CHEER = re.compile(r"(?<=\w)!+(?=[*_\s]*$|\s+[A-Z])")  # The answer is 18! is no factorial

Marked = tuple[str, bool]  # what a mark holds, and whether it ended before the text did
Finder = Callable[[str], Iterator[Marked]]


def boxes(text: str) -> Iterator[Marked]:
    r"""The contents of \boxed{...}, last first, braces nested to any depth; an unclosed one ends with its line.

    A box holds one number or none: in it 2 500 is 2500.
    """
    starts = [match.end() for match in _BOX.finditer(text)][-_BOXES:]
    for start in reversed(starts):
        part = text[start : start + LONGEST]
        content, ended = (
            _braced(part)
            if part.startswith("{")
            else (part.split(maxsplit=1)[0] if part.strip() else "", len(part) > 1)
        )
        for one in (content, _TEXT.sub(" ", content)):  # a number in a unit's words is not the answer's
            if is_single(one):
                yield one, ended
                break


def _braced(part: str) -> Marked:
    depth = 0
    for match in _BRACE.finditer(part):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return part[1 : match.start()], True
    content, newline, _ = part[1:].partition("\n")
    return content, bool(newline)


def hashes(text: str) -> Iterator[Marked]:
    """What follows `####` on its line or the next, last first; a heading that only holds a number somewhere is none."""
    for match in reversed(list(_HASH.finditer(text))):
        content = match[1] or match[2] or ""
        if _leads(content) and not _HEADING.match(content.strip()):
            yield _CHEER.sub("", content), match.end() < len(text)


def _leads(content: str) -> bool:
    """It begins with its number, a currency, a name and `=`, or the words `the answer is` aside."""
    return before_number(_LABEL.sub("", content.strip(" *_:[{<"))) == ""


def statements(text: str) -> Iterator[Marked]:
    """What follows `A:`, `Answer:` at the start of a line, `the answer is` or a key "answer", last first; then a last
    line that is a heading with the number.

    After a bare `A:` with words the reasoning may begin, so that counts only where the line is the text's last.
    """
    for match in reversed(list(_STATED.finditer(text))):
        content = (match[match.lastindex or 0]).rpartition("answer is")[2].lstrip(" :")
        last = not text[match.end() : match.end() + LONGEST].strip()
        if not re.match(r"(?:not|n't)\b", content) and (last or not match[1] or _leads(content)):
            yield _CHEER.sub("", content), match.end() < len(text)
    line = _LAST_LINE.search(text[-2 * LONGEST :])
    if line and not _HEADING.match(line[2]) and (len(line[1]) > 3 or _leads(line[2])):
        yield line[2], line.end(2) < line.end()


def final_answer(text: str, finders: Sequence[Finder], truncated: bool = False) -> str | None:
    """The last marked answer that is a number, by the first finder that has one.

    Args:
        text: the whole answer of a model.
        finders: `boxes`, `hashes` and `statements`, the form that the prompt asks for first.
        truncated: the token limit cut the text, so a mark that is still open at its end may hold half a number and does
            not count.

    Returns:
        What the mark holds, as written; None where nothing marked is a number.
    """
    own = own_turn(text)
    truncated = truncated and text.endswith(own)
    own = own[-_LONGEST_TEXT:]
    for part in parts(own):  # a base model continues with further questions
        if (found := _marked(part.text, finders, truncated and part.last)) is not None:
            # Question 1:, Question 2: before any answer are steps of its own
            return _marked(own, finders, truncated) if part.numbered else found
    return None


def _marked(text: str, finders: Sequence[Finder], truncated: bool) -> str | None:
    for find in finders:
        for marked, ended in find(text):
            if (ended or not truncated) and number_in(marked) is not None:
                return marked.strip()
    return None

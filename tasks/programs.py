"""The program in a model's answer: out of fences or prose, completed by the prompt where the answer is only a
function's body.

What is kept: imports, definitions and what they need; what is dropped: prose, usage examples, the model's own asserts,
definitions that are cut off. Of several definitions of the entry point the last complete one counts. Python's own
parser decides, and nothing is run.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
import warnings
from collections.abc import Iterator, Set

from tasks.statements import useful

_END = re.compile(r"<\|(?:endoftext|im_end|eot_id|end)\|>|</s>")
# special tokens, byte order mark, HTML around code
_NOISE = re.compile(r"<\|[a-z_]{1,30}\|>|</?s>|^\ufeff|</?(?:pre|code)>")
_LATE_FENCE = re.compile(r"(?<=[^\s`~])(`{3,})[ \t]*$", re.M)  # after the last line of code
_FENCE = re.compile(r"^[ \t]*(?:`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n]*$", re.M)
_LANGUAGES = {"", "python", "python3", "py", "py3", "ipython"}
# at the start of a line that ends what is above it
_CONTINUES = re.compile(r"[)\]}]|(?:else|elif|except|finally)\b|\"\"\"|'''")
_CODE = re.compile(
    r"^(?:[ \t]+\S|(?:return|for|while|if|with|try|import|from|def|class|async|raise|pass|yield|lambda)\b[^.!?]*$"
    r"|[A-Za-z_][\w.\[\], ]*[+\-*/|&^%]?=[^=]|@\w)",
    re.M,
)
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.M)
_LONGEST, _MOST_PARTS, _MOST_MERGES = 200_000, 2_000, 30  # characters, top-level parts, parts put together again


def find_program(text: str, entry_point: str, prompt: str = "", truncated: bool = False) -> str | None:
    """The whole program to run.

    Args:
        text: a model's answer.
        entry_point: the function that was asked for.
        prompt: what the model had to complete, a function's head after imports and helpers; "" for a request in prose.
        truncated: the token limit cut the text, so that a second definition at its end may be half of one.

    Returns:
        None where the text holds no code. Incomplete code is returned as it is, so that running it gives syntax_error,
        and code without the entry point, so that running it gives no_entry_point.
    """
    code = _at_the_margin(_code(text[:_LONGEST], entry_point), entry_point)
    if not code.strip():
        return None
    if _defines(code, entry_point) and not _starts_inside(code):
        whole = before_definition(prompt, entry_point) + code
        return _assembled(whole, entry_point, truncated) or whole
    if not prompt:
        return _clean(code, entry_point).strip() or (code if _CODE.search(code) else None)
    if (tree := _parsed(code)) and not _is_body(tree):
        return _clean(code, entry_point).strip() or None
    for body in _bodies(code):
        if program := _assembled(prompt + body, entry_point, truncated):
            return program
    return prompt + code if _CODE.search(code) else None


def _at_the_margin(code: str, entry_point: str) -> str:
    """Without the indentation of the whole, or of the first line alone, where that hides a definition."""
    if _defines(code, entry_point):
        return code
    plain = textwrap.dedent(code).lstrip("\n")
    for candidate in (plain, plain.lstrip()):
        if _defines(candidate, entry_point) and re.match(r"(?:def|class|import|from|async)\b|@", candidate):
            return candidate
    return code


def _is_body(tree: ast.Module) -> bool:
    """It may stand inside a function: there is more than definitions, imports and single names."""
    beside = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return any(
        not isinstance(node, beside)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Name | ast.Constant))
        for node in tree.body
    )


def _code(text: str, entry_point: str) -> str:
    """What stands in Python fences, else the text."""
    text = text[: end.start()] if (end := _END.search(text)) and text[: end.start()].strip() else text
    text = _LATE_FENCE.sub(r"\n\1", _NOISE.sub("", text))
    blocks = [_dedented(block, entry_point) for block in _fenced(text)]
    return "\n".join(blocks) if blocks else text


def _fenced(text: str) -> list[str]:
    """The Python blocks. The last may be open; the first may have been opened by the prompt, and begin with the
    text.
    """
    found: list[str] = []
    language, start = None, 0
    for match in _FENCE.finditer(text):
        if language is None and not found and not match[1] and _CODE.search(text[: match.start()]):
            found.append(text[: match.start()])
        elif language is None:
            language, start = match[1].lower(), match.end() + 1
        else:
            found += [text[start : match.start()]] * (language in _LANGUAGES)
            language = None
    if language in _LANGUAGES:
        found.append(text[start:])
    return [block for block in found if block.strip()]


def _dedented(block: str, entry_point: str) -> str:
    """A block in a list item is indented as a whole."""
    plain = textwrap.dedent(block)
    return plain if _defines(plain, entry_point) else block


def _defines(code: str, entry_point: str) -> bool:
    return bool(
        re.search(
            rf"^(?:(?:async\s+)?(?:def|class)\s+{re.escape(entry_point)}\b|{re.escape(entry_point)}\s*=[^=])",
            code,
            re.M,
        )
    )


def _starts_inside(code: str) -> bool:
    """Whether the text continues the body of the prompt's function."""
    return code.lstrip("\n")[:1] in (" ", "\t")


def before_definition(prompt: str, entry_point: str) -> str:
    """The prompt's imports and helpers."""
    match = re.search(rf"^(?:async\s+)?def\s+{re.escape(entry_point)}\b", prompt, re.M)
    return prompt[: match.start()] if match else prompt


def _bodies(code: str) -> Iterator[str]:
    """The answer as a function's body: as it is, all of it indented, only its first line, or what is indented behind
    prose.
    """
    yield code
    body = textwrap.indent(textwrap.dedent(code).strip("\n"), "    ") + "\n"
    if _parsed("def f():\n" + body):
        yield body
    yield "    " + code.lstrip()
    if indented := re.search(r"^[ \t]+\S", code, re.M):
        yield code[indented.start() :]


def _assembled(source: str, entry_point: str, truncated: bool) -> str | None:
    """The cleaned program, where it holds a complete definition of the entry point that does something."""
    program = _without_stubs(_clean(source, entry_point), entry_point, truncated)
    future = "".join(_FUTURE.findall(program))
    program = future + _FUTURE.sub("", program) if future else program
    definitions = _definitions(program, entry_point)
    return program if definitions and not _is_empty(definitions[-1]) else None


def _definitions(program: str, entry_point: str) -> list[ast.stmt]:
    tree = _parsed(program)
    return [node for node in tree.body if entry_point in _bound(node)] if tree else []


def _without_stubs(program: str, entry_point: str, truncated: bool) -> str:
    """Without later definitions of the entry point that do nothing, as a repeated prompt, or that the token limit may
    have cut.
    """
    definitions = _definitions(program, entry_point)
    real = [node for node in definitions if not _is_stub(node)]
    if len(real) > 1 and truncated and definitions[-1] is real[-1]:
        real.pop()
    if not real:
        return program
    gone = {line for node in definitions[definitions.index(real[-1]) + 1 :] for line in _lines(node)}
    return "".join(line for number, line in enumerate(program.splitlines(keepends=True), 1) if number not in gone)


def _is_stub(node: ast.stmt) -> bool:
    body = getattr(node, "body", None)
    nothing = (ast.Pass, ast.Import, ast.ImportFrom)
    return isinstance(body, list) and all(isinstance(part, nothing) or _is_constant(part) for part in body)


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _bound(node: ast.stmt) -> set[str]:
    """The names that a top-level definition or assignment makes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    return (
        {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.Assign)
        else set()
    )


def _is_empty(node: ast.stmt) -> bool:
    """Nothing but what a prompt's head may hold: a docstring and imports."""
    body = getattr(node, "body", None)
    return isinstance(body, list) and all(
        isinstance(part, ast.Import | ast.ImportFrom) or _is_string(part) for part in body
    )


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.lru_cache(maxsize=4)  # one text is asked for several times in a row
def _parsed(source: str) -> ast.Module | None:
    """None where it is no Python, or too deep for the parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None


def _clean(source: str, entry_point: str) -> str:
    """Top-level statements that make a program; parts that do not parse are left out."""
    whole = _parsed(source)
    trees = [(source, whole)] if whole else _parts(source)
    kept = useful([node for _, tree in trees for node in tree.body], entry_point)
    return "\n".join(_kept(part, tree, kept) for part, tree in trees)


def _parts(source: str) -> list[tuple[str, ast.Module]]:
    """The top-level parts that parse. One with an open string or bracket is tried together with what follows."""
    pieces, found, at, merges = _pieces(source), [], 0, 0
    while at < len(pieces):
        part, tree, size = pieces[at], _parsed(pieces[at]), 1
        while tree is None and _is_open(part) and at + size < len(pieces) and merges < _MOST_MERGES:
            part, merges, size = part + pieces[at + size], merges + 1, size + 1
            tree = _parsed(part)
        found += [(part, tree)] if tree else []
        at += size if tree else 1
    return found


def _pieces(source: str) -> list[str]:
    """Cut before every line that is not indented, but for decorators' functions and lines that go on."""
    pieces: list[list[str]] = []
    decorated = False
    for line in source.splitlines(keepends=True):
        begins = bool(line.strip()) and not line[0].isspace() and not _CONTINUES.match(line) and not decorated
        if begins and len(pieces) < _MOST_PARTS:
            pieces.append([])
        pieces[-1].append(line) if pieces else pieces.append([line])
        decorated = line.startswith("@")
    return ["".join(piece) for piece in pieces]


def _is_open(part: str) -> bool:
    return (
        part.count('"""') % 2 == 1
        or part.count("'''") % 2 == 1
        or any(part.count(a) > part.count(b) for a, b in ("()", "[]", "{}"))
    )


def _kept(part: str, tree: ast.Module, kept: Set[int]) -> str:
    """The part without statements that only use the program; lines that a kept statement shares stay."""
    held: set[int] = set()
    gone: set[int] = set()
    for node in tree.body:
        (held if id(node) in kept else gone).update(_lines(node))
    gone -= held
    return "".join(line for number, line in enumerate(part.splitlines(keepends=True), 1) if number not in gone)


def _lines(node: ast.stmt) -> range:
    first = min((decorator.lineno for decorator in getattr(node, "decorator_list", ())), default=node.lineno)
    return range(first, (node.end_lineno or node.lineno) + 1)

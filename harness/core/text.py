"""Text of other origin (models, paths, foreign files) as text: no terminal and no Markdown obeys it. And sizes."""

from __future__ import annotations

import re

# what may begin markup
_MARKUP = re.compile(
    r"[\\|`\[\]*~$#]"  # anywhere
    r"|(?<![^\W_])_|_(?![^\W_])"  # at the edge of a word
    r"|&(?=#?\w+;)|:(?=//)|(?<=www)\.|@(?=[\w-]+\.\w)"  # in an entity or an address
    r"|^[>=]|^[-+](?=[-+\s]|$)",  # at the start
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")


def well_formed(text: str) -> str:
    """With U+FFFD for each lone half of a surrogate pair, which no UTF-8 file can hold; whole pairs are joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def visible(text: str) -> str:
    """With control, format and bidirectional characters written out; line feeds and tabs stay."""
    return "".join(c if c in "\n\t" or c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def one_line(text: str) -> str:
    """On one line, and visible: every line end of Unicode becomes a space."""
    return visible(" ".join(text.splitlines()).replace("\t", " "))


def size_text(count: int) -> str:
    """Bytes in the largest unit of which there is one: 512 bytes, 1.5 KiB, 20.0 MiB, 14.2 GiB."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def markdown(text: object) -> str:
    """Text escaped for Markdown, on one line: no markup, no HTML element, no address to click, no cell separator."""
    plain = _MARKUP.sub(r"\\\g<0>", one_line(str(text)).strip()).replace("<", "&lt;")
    return _NUMBERED.sub(r"\1\\\2", plain)


def code_span(text: object) -> str:
    """Text as code in Markdown, between more backticks than it has in a row itself."""
    plain = one_line(str(text)).strip()
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if not plain or "`" in (plain[0], plain[-1]) else f"{fence}{plain}{fence}"

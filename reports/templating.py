"""The Jinja templates: an undefined name is an error, and HTML is escaped."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import jinja2

from harness.core.text import markdown, one_line
from reports.figures import public_path

TEMPLATES = Path(__file__).parent / "templates"


_UNIT = re.compile(r"(?<=\d) (?=%|(?:points?|tokens|ms|s|[KMGT]?i?B|[MB])\b)")  # never torn from its number


@functools.cache
def template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=name.endswith(".html.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "markdown": markdown,
        "one_line": one_line,
        "bound": lambda text: _UNIT.sub("\u00a0", str(text)),
        "public_path": public_path,
        "row": lambda cells: f"| {' | '.join(map(markdown, cells))} |",
    }
    return environment.get_template(name)

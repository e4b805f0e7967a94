"""docs/commands.md from the command line itself: `python -m scripts.write_commands`.

An option that several commands share is described once; each command links to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from textwrap import fill
from typing import Any

import click

PAGE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
HEAD = """# Commands

Written by `make generate`; do not edit. `harness COMMAND --help` shows the same in a terminal.

Settings also come from a YAML file (`--config`) and from environment variables: `HARNESS_RATIO=0.3` is `--ratio 0.3`.
The command line wins over the environment, the environment over the file, the file over a preset.
"""
SHARED = """
## Shared options

Each of these means the same in every command that has it.
"""
DEFAULT = re.compile(r"\s*Default: (.+)\.$")
SHOWN_ELSEWHERE = re.compile(
    r"\s*(?:One of [^.]+|Off: --no-[\w-]+)\.(?=$| Default)"
)  # in the columns of names and values
_PANEL = "Options"


@dataclass(frozen=True)
class Option:
    names: tuple[str, ...]
    value: str
    text: str
    default: str
    panel: str

    @property
    def name(self) -> str:
        """The long name, without its negation."""
        return self.names[0]

    @property
    def anchor(self) -> str:
        return self.name.lstrip("-")


def text() -> str:
    from harness.cli.main import cli

    found = dict(_commands(cli))
    options = {
        words: [_option(one) for one in command.params if isinstance(one, click.Option)]
        for words, command in found.items()
    }
    shared = _shared([one for several in options.values() for one in several])
    parts = [
        HEAD,
        _index(cli, found),
        *(_section(words, command, options[words], shared) for words, command in found.items()),
    ]
    return "".join([*parts, SHARED, *_shared_options(list(shared.values()))])


def _commands(group: Any, above: tuple[str, ...] = ("harness",)) -> Iterator[tuple[str, Any]]:
    """The words of every command, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))
        else:
            yield " ".join((*above, name)), command


def _option(option: click.Option) -> Option:
    shown = SHOWN_ELSEWHERE.sub("", (option.help or "").strip())
    default = DEFAULT.search(shown)
    return Option(
        names=(*sorted(option.opts, key=len, reverse=True), *option.secondary_opts),
        value="" if option.is_flag else _value(option),
        text=DEFAULT.sub("", shown),
        default=default[1] if default else "",
        panel=getattr(option, "panel", None) or _PANEL,
    )


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return ", ".join(f"`{choice}`" for choice in option.type.choices)
    return str(option.metavar or option.type.name).upper().replace("INTEGER RANGE", "INTEGER")


def _shared(options: Sequence[Option]) -> dict[str, Option]:
    """By anchor, in the order of the commands: the description that most commands have, if more than one has it."""
    found: dict[str, Option] = {}
    for option, times in Counter(options).most_common():
        if times > 1:
            found.setdefault(option.anchor, option)
    return {option.anchor: option for option in options if found.get(option.anchor) == option}


def _index(cli: Any, found: Mapping[str, Any]) -> str:
    lines = ["", "| command | |", "|---|---|"]
    for panel in cli.panels:
        lines.append(f"| **{panel.name}** | |")
        for words, command in found.items():
            if words.split()[1] in (panel.commands or ()):
                lines.append(f"| [`{words}`](#{words.replace(' ', '-')}) | {_first(command)} |")
    return "\n".join(lines) + "\n"


def _first(command: Any) -> str:
    return " ".join(cleandoc(command.help).split("\n\n")[0].split())


def _section(words: str, command: Any, options: Sequence[Option], shared: Mapping[str, Option]) -> str:
    """Usage, every option by panel as a link, and the rows of those that only this command has."""
    usage = " ".join((words, *command.collect_usage_pieces(click.Context(command))))
    prefix = words.split(" ", 1)[1].replace(" ", "-")
    anchors = {one: f"{'option' if shared.get(one.anchor) == one else prefix}-{one.anchor}" for one in options}
    own = [one for one in options if shared.get(one.anchor) != one]
    parts = [f"## {words}", _description(command.help), f"    {usage}", _links(anchors), _table(own, prefix)]
    return "".join(f"\n{part}\n" for part in parts if part)


def _description(help_text: str) -> str:
    """Paragraphs; what click must not wrap is shown as code."""
    return "\n\n".join(
        "\n".join(f"    {line}" for line in block.splitlines()[1:])
        if block.startswith("\b")
        else " ".join(block.split())
        for block in cleandoc(help_text).split("\n\n")
    )


def _links(anchors: Mapping[Option, str]) -> str:
    """A line a panel, a link an option."""
    lines = []
    for panel in dict.fromkeys(option.panel for option in anchors):
        links = ", ".join(f"[`{one.name}`](#{anchor})" for one, anchor in anchors.items() if one.panel == panel)
        lines.append(fill(f"- {panel}: {links}", 118, subsequent_indent="  ", break_on_hyphens=False))
    return "\n".join(lines)


def _shared_options(options: Sequence[Option]) -> Iterator[str]:
    for panel in dict.fromkeys(option.panel for option in options):
        yield f"\n### {panel}\n\n{_table([one for one in options if one.panel == panel], 'option')}\n"


def _table(options: Sequence[Option], prefix: str) -> str:
    head = "| option | value | | default |\n|---|---|---|---|"
    return "\n".join([head, *(_row(option, f"{prefix}-{option.anchor}") for option in options)]) if options else ""


def _row(option: Option, anchor: str) -> str:
    names = ", ".join(f"`{name}`" for name in option.names)
    cells = (f'<a id="{anchor}"></a>{names}', option.value, option.text, option.default)
    return "|" + "".join(f" {cell}".rstrip().replace("|", r"\|") + " |" for cell in cells)


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

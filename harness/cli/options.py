"""The options of commands. Those that stand for a setting are made from the fields of the config: name, type, choices,
default and description.
"""

from __future__ import annotations

import shlex
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import rich_click as click

from harness.cli.completion import complete_metrics, complete_models, complete_tasks
from harness.core.out_place import given_path
from harness.core.secrets import redacted_words

WHAT, REMOVED, SCORING = "Model and task", "What is removed", "How neurons are scored"
GOAL, EVALUATION, SPEED, RECOVERY, GRID, SETS, RUN = (
    "A goal instead of a ratio",
    "Evaluation",
    "Speed",
    "Fine-tuning",
    "The grid",
    "Sets of neurons",
    "This run",
)

# settings that several commands take, in the order of their help pages
TASK = ("task", "include_path", "metric_of")
MODEL = ("model", *TASK)
STRUCTURE = ("structure",)
METHOD = ("method",)
PLANNING = (
    *("ratio", "metric", "compensate", "sequential", "reconstruct"),
    *("allocation", "min_width", "protect", "seed", "align"),
)
CHAT = ("template_args",)
CALIBRATION = (
    *("general_weight", "score_tokens", "completions", "prompt_format", *CHAT),
    *("calibration_samples", "calibration_rows"),
)
ENGINE = ("tensor_parallel", "engine_arg")
EVALUATED = (*CALIBRATION, "limit", "items", "dtype", *ENGINE, "trust_data", "threads")
SERVING = ("concurrency", "repeats", "output_tokens", "input_tokens", "requests", "stop_at_eos")
NO_OPTION = (
    "recovery",
    "sweep",
    "dissociate",
    "goal",
    "ratios_by_width",
)  # sections and a mapping: only in a YAML file
_SECTIONS = {"recovery": RECOVERY, "sweep": GRID, "dissociate": SETS, "goal": GOAL}
_PANELS = {
    **dict.fromkeys(MODEL, WHAT),
    **dict.fromkeys((*STRUCTURE, *METHOD, *PLANNING), REMOVED),
    **dict.fromkeys(CALIBRATION, SCORING),
    **dict.fromkeys(CHAT, WHAT),
    **dict.fromkeys(("limit", "items", "dtype", *ENGINE, "trust_data", "threads"), EVALUATION),
    **dict.fromkeys(SERVING, SPEED),
    **dict.fromkeys(("recover", "arms"), RECOVERY),
    "preset": RUN,
}
_SHORT = {"model": ["-m"], "task": ["-t"], "ratio": ["-r"]}
_COMPLETION = {"model": complete_models, "task": complete_tasks, "metric": complete_metrics}
PATH = click.Path(path_type=Path)


class _OutPath(click.Path):
    """A path to write to; an empty one, which pathlib takes for the current folder, is refused."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return Path(str(super().convert(given_path(value), param, ctx)))


OUT = _OutPath(path_type=Path)


def check_used(given: Mapping[str, Any], names: Sequence[str], switch: str, on: bool) -> None:
    """Refuses settings that have no effect without a switch."""
    if not on:
        refuse(given, names, f"is a setting of {switch}; add it or leave this out")


def refuse(given: Mapping[str, Any], names: Sequence[str], reason: str) -> None:
    """Refuses settings that have no effect. reason: what follows the option's name."""
    if unused := [name for name in names if given.get(name) is not None]:
        raise click.UsageError(f"--{unused[0].replace('_', '-')} {reason}")


class SettingsCommand(click.RichCommand):
    """A command with options for settings. They are made when the command is used: the config's fields need pydantic,
    which the help page of the group has no time for.

    Args:
        settings: Names of settings; the name of a section stands for all of its settings.
        defaults: Where the command's are not the config's.
        panels: Where a setting stands in another panel of the help page than usual.
    """

    def __init__(
        self,
        *arguments: Any,
        settings: Sequence[str],
        defaults: Mapping[str, Any] = {},
        panels: Mapping[str, str] = {},
        **others: Any,
    ):
        self._settings, self._defaults, self._panels = settings, defaults, panels
        self._own: list[click.Parameter] = []
        self._all: list[click.Parameter] | None = None
        super().__init__(*arguments, **others)

    @property
    def params(self) -> list[click.Parameter]:
        if self._all is None:
            made = setting_options(self._settings, self._defaults, self._panels)
            arguments = [p for p in self._own if p.param_type_name == "argument"]
            self._all = [*arguments, *made, *(p for p in self._own if p not in arguments)]
        return self._all

    @params.setter
    def params(self, value: list[click.Parameter]) -> None:
        self._own, self._all = value, None


def setting_options(
    names: Sequence[str], defaults: Mapping[str, Any] = {}, panels: Mapping[str, str] = {}
) -> list[click.Parameter]:
    """The options of settings, each None where it is not given; see `SettingsCommand`."""
    from harness.config.settings import settings_of

    found: list[click.Parameter] = []
    for name in names:
        inner = [each for each in settings_of(name) if each not in NO_OPTION] if name in _SECTIONS else [name]
        panel = _SECTIONS.get(name, _PANELS.get(name))
        found += [setting_option(each, defaults.get(each), panels.get(each, panel)) for each in inner]
    return found


def setting_option(name: str, default: Any = None, panel: str | None = None) -> click.Option:
    """The option of one setting. default: the command's, where it is not the config's."""
    from harness.config.settings import FIELDS, presets

    field = FIELDS[name]
    kind, is_list = _kind(field.annotation)
    choices = presets() if name == "preset" else typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    option = f"--{name.replace('_', '-')}"
    negated = f"--no-{name.replace('_', '-')}" if kind is bool else None
    what, _, unset = str(field.description).partition(" Default: ")
    told = f"Default: {unset}" if unset and default is None else None
    shown = [
        what,
        f"One of {', '.join(choices)}." if choices else None,
        told or _default_text(field.default if default is None else default),
        f"Off: {negated}." if negated and field.default is None else None,
    ]
    return click.RichOption(
        [name, f"{option}/{negated}" if negated else option, *_SHORT.get(name, ())],
        default=None,
        is_flag=kind is bool,
        multiple=is_list,
        callback=_joined if is_list else None,
        type=None if kind is bool else _type(kind, choices, is_list),
        metavar=_metavar(field.annotation, is_list, choices),
        help=" ".join(filter(None, shown)),
        shell_complete=_COMPLETION.get(name),
        panel=panel,
    )


def _metavar(annotation: Any, is_list: bool, choices: Sequence[str]) -> str | None:
    if typing.get_origin(annotation) is Mapping:
        return "NAME=VALUE,..."
    return "A,B,..." if is_list else "NAME" if choices else None


def _kind(annotation: Any) -> tuple[Any, bool]:
    """The type of a value, or of one value of a list; and whether it is a list. A mapping is a list of NAME=VALUE."""
    kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    if typing.get_origin(annotation) is Mapping:
        return str, True
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return _kind(kinds[0])
    return (kinds[0], True) if typing.get_origin(annotation) is tuple else (annotation, False)


def _type(kind: Any, choices: Sequence[str], is_list: bool) -> Any:
    """What click checks; the items of a list are checked with the config."""
    if is_list or not (choices or kind in (int, float, Path)):
        return str
    return click.Choice(choices) if choices else PATH if kind is Path else kind


def _joined(_context: Any, _option: Any, values: tuple[str, ...]) -> str | None:
    """A list is given with commas or by repeating the option."""
    return ",".join(values) if values else None


def _default_text(default: Any) -> str | None:
    """None where there is no default, or where the description says what it means."""
    if default is None or default is False or default in ((), {}):
        return None
    values = default if isinstance(default, tuple) else (default,)
    return f"Default: {','.join(f'{v:g}' if isinstance(v, float) else str(v) for v in values)}."


def _option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    return click.option(*names, panel=RUN, **settings)


CONFIG = _option("--config", "config_file", type=PATH, help="YAML file with settings; the command line wins.")
DRY_RUN = _option("--dry-run", is_flag=True, help="Print what would be done, and stop.")
FRESH = _option("--fresh", is_flag=True, help="Start over if the run directory was made with other settings.")
JSON = _option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
DEBUG = _option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")


def out_option(default: str) -> Callable[[Any], Any]:
    """`--out`: the run directory."""
    return _option("--out", type=OUT, help=f"Run directory. Default: {default}.")


def typed_command(arguments: Sequence[str] | None = None) -> str:
    """The command line of this process, for manifest.json and run.json.

    Args:
        arguments: What follows the program's name; None: this process's own.

    Returns:
        A line that a shell would read as the same command, with keys and tokens replaced by "...".
    """
    return shlex.join(["harness", *redacted_words(sys.argv[1:] if arguments is None else arguments)])

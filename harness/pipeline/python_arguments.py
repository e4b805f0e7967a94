"""The arguments of the Python API: settings from keywords, models by what names them, places to write to."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.config.settings import RunConfig, load_config, settings_of
from harness.core.errors import UsageError
from harness.core.out_place import given_path
from harness.core.types.pruning import PruningPlan
from pruning.checkpoint import ModelFolder

Model = str | Path | ModelFolder
Config = RunConfig | str | Path
Place = str | Path | None
Names = str | Sequence[str]


def settings_from(
    config: Config | None, keywords: Mapping[str, Any], defaults: Mapping[str, Any] = {}, check_names: bool = True
) -> RunConfig:
    """`config` with the keywords that are given; raises UsageError for every one that is wrong."""
    from harness.pipeline.resolve import name_problems  # with the libraries that it needs only once something is called

    given = {name: value for name, value in keywords.items() if value is not None}
    given |= {"model": model_name(given["model"])} if "model" in given else {}
    names = name_problems if check_names else None
    if not isinstance(config, RunConfig):
        preset, file = given.pop("preset", None), Path(config) if config else None
        return load_config(file, given, preset, defaults, names, "argument {}")
    if given:
        goal = bool(config.goal.given) or not given.keys().isdisjoint(settings_of("goal"))
        unset = {"ratio"} - config.model_fields_set if goal else None  # a ratio that is given contradicts a goal
        values = {**config.model_dump(exclude=unset), **given}
        return load_config(None, values, config.preset, defaults, names, "argument {}")
    if problems := [f"{name}: {problem}" for name, problem in (names(config.model_dump()) if names else ())]:
        raise UsageError(f"bad settings: {'; '.join(problems)}")
    return config


def model_name(model: Model) -> str:
    """As settings and messages name it. A folder is never an alias, also where its name is one's."""
    path = model.path if isinstance(model, ModelFolder) else model
    return str(path.absolute() if isinstance(path, Path) and path.is_dir() else path)


def file_of(plan: PruningPlan | str | Path) -> Path:
    """Raises UsageError for a plan that was never saved."""
    found = plan.path if isinstance(plan, PruningPlan) else Path(plan)
    if found is None:
        raise UsageError("the plan is in no file; give one that harness.plan returned, or its file")
    return found


def out_path(out: Place, name: str) -> Path:
    """Where to write: `out`, or `name` in a temporary folder that is deleted when the process ends."""
    return given_path(out) if out is not None else Path(tempfile.mkdtemp(dir=_temporary().name)) / name


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    """For as long as the process lives; one folder per call in it."""
    return tempfile.TemporaryDirectory(prefix="harness-")

"""Models that a file names: scores, plans, pruning.json. Such a name is never taken for another thing than it was."""

from __future__ import annotations

import os
from pathlib import Path

from harness.core.errors import HarnessError, UsageError
from harness.core.types.model import ModelKind
from harness.models import registry
from pruning.checkpoint import ModelFolder


def locate_recorded(name: str, kind: ModelKind, fingerprint: str, made: str | Path) -> ModelFolder:
    """The model that a file was made from, opened.

    Args:
        name: As it was recorded: a Hub id, an absolute path or an alias.
        kind: Which of them; a file of an older version does not say.
        fingerprint: Of the model at that time.
        made: What was made from it, for an error.

    Raises:
        UsageError: It is gone, or has other weights. A folder that is gone is not looked for on the Hub, and nothing
            is downloaded for a name of which the kind is not known.
    """
    found = _find(name, kind, str(made))
    if found.fingerprint != fingerprint:
        raise UsageError(f"{name}, which {made} was made from, has other weights by now; get the same ones again")
    return found


def _find(name: str, kind: ModelKind, made: str) -> ModelFolder:
    if kind in ("hub", "alias"):
        alias = registry.name_of(name)
        return registry.locate(alias, registry.kind_of(alias, name))
    if Path(name).is_absolute() or kind in ("folder", "file"):
        return _on_this_machine(name, made)
    if name in registry.ALIASES:
        return registry.locate(name, "math")
    return _of_unknown_kind(name, made)


def check_present(name: str, kind: ModelKind, made: str | Path) -> None:
    """Raises UsageError where a file was made from a folder or file of this machine that is gone; reads nothing."""
    local = Path(name).is_absolute() or kind in ("folder", "file")
    if local and not Path(name).exists():
        raise UsageError(f"{name}, which {made} was made from, is gone; put it back there, or make {made} again")


def locate_given(name: str, identity: str, kind: ModelKind) -> ModelFolder:
    """The model that a user names for a plan, opened.

    Args:
        name: As it is given.
        identity: What the plan was made from, as it was recorded.
        kind: What that is.

    Raises:
        UsageError: The plan was made from a folder of this name, which is gone; the Hub is not asked for it.
    """
    alike = kind in ("folder", "file") and f"/{identity}".endswith(f"/{name}")
    if alike and not os.path.lexists(name):
        raise UsageError(f"{name} is gone; the plan was made from {identity}: give the place where that is now")
    return registry.locate(name, registry.kind_of(name, identity))


def _on_this_machine(name: str, made: str) -> ModelFolder:
    check_present(name, "folder", made)
    return registry.locate(os.fspath(Path(name).absolute()), "math")


def _of_unknown_kind(name: str, made: str) -> ModelFolder:
    """By a relative path from here, or out of what was downloaded before."""
    try:
        return registry.locate(name, "math") if Path(name).exists() else registry.locate_downloaded(name)
    except HarnessError as error:
        raise UsageError(
            f"{made} was made from {name} by an older version, which does not say whether that is a folder or a Hub "
            f"id, and neither is on this machine; make {made} again"
        ) from error

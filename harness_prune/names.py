"""Whether the packages with generic names are ours, or hidden by a file or folder of the user's."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

PACKAGES = ("harness", "pruning", "tasks", "recovery", "reports")
_ROOT = Path(__file__).resolve().parent.parent


def hidden() -> str | None:
    """What hides one of our packages and what to do, in one line; None where all are ours. Imports none of them."""
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None:
            return f"harness's package {name} is missing beside {Path(__file__).parent}; install harness-prune again"
        found = _place(spec)
        if found.resolve() != _ROOT / name:
            return f"{found} hides harness's package {name}; unset PYTHONPATH, work in another folder, or rename yours"
    return None


def _place(spec: ModuleSpec) -> Path:
    """The folder of a package, or the file of a module."""
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or ".")

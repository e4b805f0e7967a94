"""What the shell offers after --model, --task and --metric."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from click.shell_completion import CompletionItem


@contextmanager
def _quiet() -> Iterator[None]:
    """What is said of packages that cannot be loaded would be printed into the line that is being typed."""
    with redirect_stderr(io.StringIO()):
        yield


def complete_models(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    """Aliases, and folders that hold a model."""
    from harness.models.registry import ALIASES

    found = [
        CompletionItem(alias.name, help=alias.summary)
        for alias in ALIASES.values()
        if alias.name.startswith(incomplete)
    ]
    near = Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent
    folders = sorted(near.iterdir()) if near.is_dir() else []
    return found + [CompletionItem(str(path)) for path in folders if path.is_dir() and str(path).startswith(incomplete)]


@_quiet()
def complete_tasks(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from tasks.registry import FAMILY_NAMES, loadable_tasks

    found = [CompletionItem(task.name, help=task.summary) for task in loadable_tasks()]
    return [item for item in (*found, *map(CompletionItem, FAMILY_NAMES)) if item.value.startswith(incomplete)]


@_quiet()
def complete_metrics(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    from pruning.scores import describe_metrics

    return [CompletionItem(name, help=what) for name, what in describe_metrics() if name.startswith(incomplete)]

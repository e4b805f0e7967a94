"""Prunes FFN neurons of task-specific language models and measures what that changes. The functions are in
`harness.api`; none of the libraries below is imported before one of them is called.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

from harness_prune.names import hidden

if TYPE_CHECKING:
    from harness.api import (
        bench,
        dissociate,
        elastic,
        evaluate,
        export,
        load_run,
        plan,
        prune,
        recover,
        run,
        score,
        slice_width,
        sweep,
        vocabulary,
    )

if sys.argv[:1] != ["-m"] and (_reason := hidden()):  # for `python -m harness`, harness/__main__.py says it in one line
    raise ImportError(_reason)

__all__ = [
    "bench",
    "dissociate",
    "elastic",
    "evaluate",
    "export",
    "load_run",
    "plan",
    "prune",
    "recover",
    "run",
    "score",
    "slice_width",
    "sweep",
    "vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with warnings.catch_warnings():  # some libraries add filters when they are imported
        from harness import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

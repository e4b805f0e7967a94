"""What a dissociation refuses before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.sweeps.dissociation.resolve import resolve_dissociation


def resolved(**options: Any) -> Any:
    return resolve_dissociation(load_config(None, {"model": "tiny-math", "task": "mini_math,mini_facts", **options}))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "mini_math,wikitext"}, "wikitext is measured as .*, which has no right answers; leave it out"),
        ({"ratio": 0.6}, "ratio 0.6 is 384 of 640 neurons; each needs another one as its match"),
        ({"ratio": 0.0001}, "at least one neuron"),
        ({"limit": 1}, "one item leaves no interval"),
        ({"engine_arg": "enforce_eager=false"}, "enforce_eager=false: a compiled layer takes no mean"),
        ({"structure": "kv_group"}, "removes FFN neurons"),
    ],
)
def test_what_cannot_be_shown_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        resolved(**options)


def test_the_tasks_are_those_that_are_asked_for() -> None:
    spec = resolved(limit=30, engine_arg="enforce_eager=true")
    assert [task.name for task in spec.tasks] == ["mini_math", "mini_facts"] and not spec.arms

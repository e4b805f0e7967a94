"""Where the plan of a variant lies below its run directory, by what run.json says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any


def plan_name(run: Mapping[str, Any], variant: str) -> str:
    """The path of a variant's plan relative to the run directory: in that itself where the variant is the only pruned
    one of a run.
    """
    pruned = [v for v in run["variants"][1:] if not v["recovered"]]
    alone = len(pruned) == 1 and not (run.get("sweep") or run.get("goal"))
    return "plan.safetensors" if alone else f"arms/{variant}/plan.safetensors"


def checkpoint_name(plan: str) -> str:
    """The path of the checkpoint that belongs to a plan, relative to the run directory."""
    return str(PurePosixPath(plan).with_name("checkpoint"))

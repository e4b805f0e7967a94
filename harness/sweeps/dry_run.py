"""What a sweep would do, from the model's config alone."""

from __future__ import annotations

from typing import Any

from harness.pipeline.dry_run import duration_text, estimated_seconds, recovery_cost, recovery_rows
from harness.pipeline.resolve import ResolvedRun
from harness.sweeps.grid import grid_rows
from reports.figures import percent
from reports.parts import Table


def forecast_sweep(spec: ResolvedRun) -> dict[str, Any]:
    """Widths and cells of a sweep; `seconds` as above, with one engine at a time."""
    methods = {arm.kind: len({a.request.seed for a in spec.arms if a.kind == arm.kind}) for arm in spec.arms}
    return {
        "model": spec.model,
        "task": [task.name for task in spec.tasks],
        "methods": methods,
        "grid": grid_rows(spec),
        "variants": 1 + len(spec.arms),
        "recovered": spec.recovered,
        "parameters": spec.shape.parameters,
        "intermediate_size": spec.shape.intermediate_size,
        "recovery": recovery_cost(spec),
        "seconds": estimated_seconds(spec),
    }


def grid_table(found: dict[str, Any]) -> Table:

    seconds = (
        "not estimated for a GPU"
        if found["seconds"] is None
        else f"at most about {duration_text(found['seconds'])} on this CPU"
    )
    rows = [
        ("model", f"{found['model']}, {found['parameters']:,} parameters, FFN width {found['intermediate_size']}"),
        ("tasks", ", ".join(found["task"])),
        (
            "methods",
            ", ".join(f"{kind} ({seeds} seeds)" if seeds > 1 else kind for kind, seeds in found["methods"].items()),
        ),
        *(
            (percent(row["ratio"], 2), f"width {row['intermediate_size']}, {row['parameters']:,} parameters")
            for row in found["grid"]
        ),
        ("variants evaluated", str(found["variants"] + len(found["recovered"]))),
        ("fine-tuned", ", ".join(found["recovered"]) or "none"),
        *recovery_rows(found["recovery"]),
        ("time", f"{seconds}, one engine at a time"),
    ]
    return Table("What this sweep would do", ("what", "value"), tuple(rows))

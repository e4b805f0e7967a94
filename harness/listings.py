"""Commands that list what there is: models, metrics, tasks."""

from __future__ import annotations

import json

import rich_click as click

from harness.options import DEBUG, JSON
from harness.printing import answer


@click.command("models")
@JSON
@DEBUG
def models_command(as_json: bool) -> None:
    """List the model aliases."""
    from harness.models import ALIASES
    from reports.parts import Table

    rows = [(a.name, a.task, ", ".join(a.ids.values()) or a.summary) for a in ALIASES.values()]
    found = [{"name": name, "task": task, "model": model} for name, task, model in rows]
    answer(found, as_json, Table("Models", ("name", "default task", "model"), tuple(rows), "Or any local folder, or any Hub id."))


@click.command("metrics")
@JSON
@DEBUG
def metrics_command(as_json: bool) -> None:
    """List the metrics that score neurons."""
    from pruning.scores import describe_metrics
    from reports.parts import Table

    rows = describe_metrics()
    found = [{"name": name, "what": what} for name, what in rows]
    answer(found, as_json, Table("Metrics", ("name", "what"), rows))


@click.command("tasks")
@click.option("--path", is_flag=True, help="Print the folder for lm-eval's --include_path.")
@JSON
@DEBUG
def tasks_command(path: bool, as_json: bool) -> None:
    """List the tasks."""
    from reports.parts import Table
    from tasks.registry import TASKS, TASKS_PATH

    if path:
        click.echo(json.dumps({"path": str(TASKS_PATH)}) if as_json else TASKS_PATH)
        return
    rows = [(t.name, t.metric, t.summary) for t in TASKS.values()]
    found = [{"name": name, "metric": metric, "summary": summary} for name, metric, summary in rows]
    answer(found, as_json, Table("Tasks", ("name", "metric", "what"), tuple(rows)))

"""Commands about finished runs: list, render, compare, inspect, track, push."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from harness.cli.options import DEBUG, DRY_RUN, JSON, PATH
from harness.cli.output import answer, print_lines, print_table, stdout_to_stderr
from harness.core.errors import UsageError
from harness.core.progress import say
from harness.publish.trackers import TRACKERS

if TYPE_CHECKING:
    from reports.parts import Table

_STATES = ("running", "finished", "failed", "stopped", "killed")


@click.command("runs")
@click.argument("folder", type=PATH, required=False)
@click.option("--model", "-m", help="Only runs whose model's name contains this.")
@click.option("--task", "-t", help="Only runs of this task.")
@click.option(
    "--state",
    multiple=True,
    type=click.Choice(_STATES),
    metavar="NAME",
    help=f"Only runs in this state; may be repeated. One of {', '.join(_STATES)}.",
)
@JSON
@DEBUG
def runs_command(
    folder: Path | None, model: str | None, task: str | None, state: tuple[str, ...], as_json: bool
) -> None:
    """List run directories, the state of each, and the command that resumes it.

    \b
    harness runs
    harness runs --state killed
    """
    from harness.pipeline.run_list import list_runs, run_lines

    place = folder or Path("runs")
    found = list_runs(place, model, task, state) if folder or place.is_dir() else []
    if as_json:
        answer([asdict(info) for info in found], as_json)
    else:
        chosen = model or task or state
        print_lines(
            run_lines(found)
            or [f"no such run in {place}" if chosen else f"no runs yet in {place}; harness run makes one"]
        )


@click.command("report")
@click.argument("run", type=PATH)
@click.option(
    "--format",
    "formats",
    default="html,md",
    metavar="A,B,...",
    help="Formats to write, of html, md, csv and card. Default: html,md.",
)
@JSON
@DEBUG
def report_command(run: Path, formats: str, as_json: bool) -> None:
    """Render RUN again from its run.json.

    \b
    harness report runs/mine
    harness report runs/mine --format html,md,csv,card
    """
    from reports.build import write_reports

    written = write_reports(run, [name.strip() for name in formats.split(",") if name.strip()])
    answer({name: str(path) for name, path in written.items()}, as_json)


@click.command("compare")
@click.argument("runs", nargs=-1, required=True)
@click.option("--different", is_flag=True, help="Compare also runs made on another device or with another dtype.")
@JSON
@DEBUG
def compare_command(runs: tuple[str, ...], different: bool, as_json: bool) -> None:
    """What changed from the first of RUNS to each other one, item by item.

    \b
    harness compare runs/a runs/b
    harness compare runs/a:dense runs/b:selective-best-0.2
    """
    from harness.evaluation.compare_runs import compare_runs, comparison_table

    found = compare_runs(runs, different)
    answer(found, as_json, comparison_table(found))


@click.command("inspect")
@click.argument("run", type=PATH)
@JSON
@DEBUG
def inspect_command(run: Path, as_json: bool) -> None:
    """Where the removed neurons of RUN are, how far metrics agree, and how stable the rankings are."""
    from harness.core.run_file import figures_of, read_run
    from reports.sections.neurons import neuron_tables

    found = read_run(run)
    with figures_of(run):
        tables = neuron_tables(found)
    if not tables:
        raise UsageError(f"{run} scored no neurons; inspect a directory that `harness run` wrote")
    if as_json:
        click.echo(json.dumps(found["neurons"], indent=1))
        return
    for table in tables:
        print_table(table)


@click.command("track")
@click.argument("run", type=PATH)
@click.option(
    "--with",
    "kind",
    required=True,
    type=click.Choice([*TRACKERS]),
    metavar="NAME",
    help=f"Tracker to send to. One of {', '.join(TRACKERS)}.",
)
@click.option("--project", default="harness", help="Its project or experiment. Default: harness.")
@JSON
@DEBUG
def track_command(run: Path, kind: str, project: str, as_json: bool) -> None:
    """Send the figures of RUN to an experiment tracker.

    Only this command, `push`, and a fine-tuning with --report-to send anything.

    \b
    harness track runs/laptop --with trackio
    WANDB_MODE=offline harness track runs/laptop --with wandb
    harness track runs/laptop --with mlflow          into ./mlruns
    MLFLOW_TRACKING_URI=http://HOST:5000 harness track runs/laptop --with mlflow
    """
    from harness.publish.trackers import track, where_to_look

    with stdout_to_stderr():
        sent = track(run, kind, project)
    found = {"tracker": kind, "project": project, "figures": sent}
    answer(found if as_json else {**found, "look at them": where_to_look(kind, project)}, as_json)


@click.command("push")
@click.argument("run", type=PATH)
@click.option("--to", "repo", help="Repository, USER/NAME. Default: MODEL-VARIANT in the signed-in user's namespace.")
@click.option("--variant", help="Variant to push. Default: the report's choice, else the first with a checkpoint.")
@click.option(
    "--public/--private", default=False, help="Let everybody read the repository. Default: a new one is private."
)
@click.option("--yes", is_flag=True, help="Do not ask before sending; needed where there is no terminal.")
@DRY_RUN
@JSON
@DEBUG
def push_command(
    run: Path, repo: str | None, variant: str | None, public: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Push a checkpoint of RUN to the Hugging Face Hub: weights, plan, and a card with its results and licence.

    It lists the files and those that it leaves out, and asks before it sends them.

    \b
    harness push runs/mine --to me/qwen-math-pruned --dry-run
    harness push runs/mine --to me/qwen-math-pruned
    harness push runs/mine --to me/qwen-math-pruned --public --yes
    """
    from harness.publish.hub import prepare_upload, push, upload_table

    if not (yes or dry_run or (sys.stdin and sys.stdin.isatty())):
        raise UsageError("push asks before it sends, and there is no terminal; give --yes, or --dry-run to see what")
    upload = prepare_upload(run, variant)
    repo = repo or upload.name
    files = [{"name": file.name, "bytes": file.size_bytes} for file in upload.files]
    left_out = [{"name": name, "reason": reason} for name, reason in upload.left_out]
    found = {
        "repo": repo,
        "private": not public,
        "variant": upload.variant,
        "licence": upload.licence,
        "files": files,
        "left_out": left_out,
    }
    table = upload_table(upload, repo, public)
    if dry_run:
        answer(found, as_json, table)
        return
    if yes:
        for name, reason in upload.left_out:
            say(f"left out: {name} ({reason})")
    else:
        _ask(table)
    with stdout_to_stderr():
        url = push(upload, repo, public)
    answer({**found, "url": url} if as_json else {"pushed": url}, as_json)


def _ask(table: Table) -> None:
    """Shows what would be sent, on standard error; raises UsageError where the answer is not yes."""
    with redirect_stdout(sys.stderr):
        print_table(table)
    if not click.confirm("Send these files?", err=True):
        raise UsageError("nothing was sent")

"""The project's CUDA paths on one GPU, measured through its own code: `make gpu-check`.

With --tiny the same parts in small, on any machine. What each part measures is in docs/gpu.md. Every part stands for
itself: a failure is recorded with its error, and the rest goes on; the exit code is 1 then.
"""

from __future__ import annotations

import datetime
import os
import re
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.gpu_check import engine_parts, pruning_parts, recovery_part
from benchmarks.gpu_check.report import RESULTS, failed, read_results, write_report, write_results
from benchmarks.gpu_check.subjects import RATIOS, TINY, Amount, Subject, subjects_of
from harness.config.engine_options import parse_engine_options
from harness.core.errors import HarnessError, UsageError, first_line
from harness.core.files import check_disk
from harness.core.memory import release_memory
from harness.engine.devices import device_name
from harness.engine.library_settings import library_settings, prepare_environment
from harness.pipeline.run_json import hardware, versions

Work = Callable[[], dict[str, Any]]
PARTS = (
    "facts", "models", "scoring", "moments", "obs", "export", "swap", "side-by-side", "serving", "online", "recovery",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One measurement. detail: which of several of one part and model."""

    part: str
    model: str
    work: Work
    detail: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.part, self.model, self.detail)))


def jobs_of(subjects: Sequence[Subject], parts: Sequence[str], tiny: bool) -> Iterator[Job]:
    """In the order in which they run: all parts of one model, then the next model."""
    chosen = parts or PARTS
    if "facts" in chosen:
        yield Job("facts", "", partial(pruning_parts.facts, tiny))
    for subject in subjects:
        yield from (job for job in _jobs_of(subject) if job.part in chosen)


def _jobs_of(subject: Subject) -> Iterator[Job]:
    def job(part: str, work: Callable[..., dict[str, Any]], *ratio: float) -> Job:
        return Job(part, subject.name, partial(work, subject, *ratio), *map(subject.variant_name, ratio))

    if subject.given is None:
        yield job("models", pruning_parts.models)
    yield job("scoring", pruning_parts.scoring)
    yield job("moments", pruning_parts.moments)
    yield job("obs", pruning_parts.obs)
    yield from (job("export", pruning_parts.export, ratio) for ratio in RATIOS)
    yield job("swap", engine_parts.live_swap)
    yield job("side-by-side", engine_parts.side_by_side)
    yield from (job("serving", engine_parts.serving, ratio) for ratio in (0.0, *RATIOS))
    yield job("online", engine_parts.online)
    yield job("recovery", recovery_part.recovery)


def run_jobs(
    jobs: Iterator[Job], results: dict[str, Any], out: Path, seconds: float, threads: int | None = None
) -> None:
    """Adds an entry to the results for each job, and writes them after each. No job starts after `seconds`."""
    started = time.monotonic()
    for job in jobs:
        left_out = time.monotonic() - started > seconds
        entry = {"left_out": f"not started within {seconds:g} seconds"} if left_out else outcome(job, threads)
        entry = {"name": job.name, "part": job.part, "model": job.model, **entry}
        results["parts"] = [other for other in results["parts"] if other["name"] != job.name] + [entry]
        write_results(results, out)


def outcome(job: Job, threads: int | None = None) -> dict[str, Any]:
    """Seconds and figures, or the error in one line; its traceback goes to standard error."""
    started = time.monotonic()
    found: dict[str, Any]
    try:
        with library_settings(threads):
            found = {"figures": job.work()}
    except (Exception, SystemExit) as error:
        click.echo(traceback.format_exc(), err=True)
        found = {"error": f"{type(error).__name__}: {first_line(error)}"}
    release_memory()
    found = {"seconds": time.monotonic() - started, **found}
    click.echo(f"{job.name}: {found['seconds']:.1f} s {found.get('error', '')}".rstrip(), err=True)
    return found


def new_results(out: Path, name: str) -> dict[str, Any]:
    """Results without entries, or with those and the commands of earlier calls on the same device and versions."""
    command = shlex.join(["python", "-m", "benchmarks.gpu_check", *sys.argv[1:]])
    found = {
        "hardware_name": name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(),
    }
    before = read_results(out) if (out / RESULTS).exists() else {}
    same = all(before.get(key) == found[key] for key in ("hardware_name", "versions"))
    commands = dict.fromkeys([*(before["commands"] if same else []), command])
    return {**found, "commands": list(commands), "parts": before["parts"] if same else []}


def hardware_name() -> str:
    """The GPU's name, or the processor's."""
    import torch

    return torch.cuda.get_device_name(0) if device_name() == "cuda" else str(hardware()["cpu"] or "CPU")


def folder_of(name: str) -> str:
    """A GPU's name as a folder: "NVIDIA H100 80GB HBM3" is h100-80gb-hbm3."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().removeprefix("nvidia ")).strip("-")


def check_options(tiny: bool, shapes: Sequence[str], models: Sequence[Path]) -> None:
    """Raises UsageError where there is no GPU to measure, or options contradict each other."""
    if tiny and (shapes or models):
        raise UsageError("--tiny has a shape of its own; leave out --shape and --model")
    if not tiny and device_name() != "cuda":
        raise UsageError("torch sees no GPU here, and these measurements are of one; add --tiny to try them on a CPU")


def engine_options(given: Sequence[str]) -> dict[str, Any]:
    """vLLM's own options; raises UsageError where it does not have one, or it is of another type."""
    try:
        return dict(parse_engine_options(list(given)) or {})
    except ValueError as error:
        raise UsageError(f"--engine-arg: {error}") from error


def check(tiny: bool, shapes: Sequence[str], models: Sequence[Path], parts: Sequence[str], **where: Any) -> list[str]:
    """Runs the parts and writes the report; returns the names of what failed."""
    check_options(tiny, shapes, models)
    name = hardware_name()
    out = where["out"] or (Path("runs/gpu-check") if tiny else Path("reports/example") / folder_of(name))
    with ExitStack() as stack:
        work = where["work"] or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = ["tiny"] if tiny else list(shapes) or ([] if models else ["1.5b", "7b"])
        amount = replace(TINY if tiny else Amount(), engine_arg=engine_options(where["engine_arg"]))
        subjects = subjects_of(names, models, work, amount)
        check_disk(work, sum(subject.disk_bytes() for subject in subjects))
        results = new_results(out, name)
        run_jobs(jobs_of(subjects, parts, tiny), results, out, where["seconds"], amount.threads)
    write_report(out)
    click.echo(f"Report: {out / 'report.md'}")
    return failed(results)


@click.command()
@click.option("--tiny", is_flag=True, help="The same parts on a small model, on any machine; what CI runs.")
@click.option("--shape", "shapes", type=click.Choice(["1.5b", "7b"]), multiple=True, help="Default: both.")
@click.option("--model", "models", type=click.Path(path_type=Path), multiple=True, help="A checkpoint, instead.")
@click.option("--parts", type=click.Choice(PARTS), multiple=True, help="Give it once for each part. Default: all.")
@click.option("--engine-arg", multiple=True, help="An option of vLLM's, NAME=VALUE, as in `harness run`.")
@click.option("--seconds", type=float, default=float("inf"), help="No part starts after so long.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Default: reports/example/GPU; with --tiny runs/gpu-check."
)
@click.option("--work", type=click.Path(path_type=Path), help="Folder for checkpoints. Default: a temporary one.")
def main(**options: Any) -> None:
    """Measure the CUDA paths of this project on one GPU, and write results.json, run.json and reports."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    prepare_environment(TINY.threads if options["tiny"] else None)  # before torch is imported
    try:
        wrong = check(**options)
    except HarnessError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    if wrong:
        click.echo(f"failed: {', '.join(wrong)}", err=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()

"""Kills `harness sweep --preset quick` with SIGKILL at random moments, resumes it, and holds run.json against an
undisturbed one.

No stage that was finished may be done again.

`python scripts/kill_quick.py --times 20`; exits 1 where one of the resumed sweeps has other figures.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click

TIMES = ("seconds", "created", "command", "serving", "speed_ratios", "tokens_per_second")


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", "sweep", "--preset", "quick", "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def figures(value: Any) -> Any:
    """run.json without what a clock decides: times, speeds, and the claim that is about speed."""
    if isinstance(value, dict):
        return {key: figures(found) for key, found in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [
            figures(found) for found in value if not str(getattr(found, "get", lambda _: "")("claim")).startswith("4.")
        ]
    return value


def finish(folder: Path) -> Any:
    process = start(folder)
    _, errors = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"the sweep failed:\n{errors.decode()[-2000:]}")
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


def killed(folder: Path, moment: float) -> tuple[str, Any]:
    """What had been done when it was killed, and the figures after a resume; raises SystemExit where a finished stage
    is done again.
    """
    process = start(folder)
    time.sleep(moment)
    over = process.poll() is not None
    if not over:
        os.kill(process.pid, signal.SIGKILL)  # this process alone: its workers have to see it by themselves
    process.communicate()
    done = stages(folder)
    before = {name: stamps(folder, entry) for name, entry in done.items()}
    found = figures(finish(folder))
    again = [name for name, entry in done.items() if stamps(folder, entry) != before[name]]
    if again:
        raise SystemExit(f"done again after a kill at {moment:.1f} s: {', '.join(again)}")
    return "after it had ended" if over else f"with {len(done)} stages done", found


def stages(folder: Path) -> dict[str, Any]:
    file = folder / "manifest.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))["stages"]) if file.exists() else {}


def stamps(folder: Path, entry: dict[str, Any]) -> list[int]:
    """When a stage's outputs were written; a folder's files in order."""
    paths = [folder / name for name in entry["outputs"]]
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return [file.stat().st_mtime_ns for file in files if file.is_file()]


@click.command()
@click.option("--times", default=20, show_default=True)
@click.option("--jobs", default=1, show_default=True, help="At a time.")
@click.option("--seed", default=0, show_default=True)
def main(times: int, jobs: int, seed: int) -> None:
    draw, same = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(jobs) as pool:
        started = time.monotonic()
        expected, whole = figures(finish(Path(name) / "whole")), time.monotonic() - started
        click.echo(f"undisturbed: {whole:.0f} s")
        moments = [draw.uniform(0.5, whole) for _ in range(times)]
        outcomes = pool.map(lambda number: killed(Path(name) / str(number), moments[number]), range(times))
        for number, (what, found) in enumerate(outcomes):
            same += found == expected
            verdict = "the same figures" if found == expected else "OTHER FIGURES"
            click.echo(f"{number + 1}: killed after {moments[number]:.1f} s {what}: {verdict}")
    click.echo(f"{same} of {times} resumed to the same figures")
    sys.exit(same < times)


if __name__ == "__main__":
    main()

"""Kills `harness sweep --preset quick` with SIGKILL at random moments, resumes it, and holds run.json against an undisturbed one.

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
from pathlib import Path
from typing import Any

import click

TIMES = ("seconds", "created", "command", "serving", "speed_ratios", "tokens_per_second")


def start(folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness.cli", "sweep", "--preset", "quick", "--out", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def figures(value: Any) -> Any:
    """run.json without what a clock decides: times, speeds, and the claim that is about speed."""
    if isinstance(value, dict):
        return {key: figures(found) for key, found in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [figures(found) for found in value if not str(getattr(found, "get", lambda _: "")("claim")).startswith("4.")]
    return value


def finish(folder: Path) -> Any:
    process = start(folder)
    _, errors = process.communicate(timeout=900)
    if process.returncode:
        raise SystemExit(f"the sweep failed:\n{errors.decode()[-2000:]}")
    return json.loads((folder / "run.json").read_text(encoding="utf-8"))


@click.command()
@click.option("--times", default=20, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(times: int, seed: int) -> None:
    draw, same = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        started = time.monotonic()
        expected, whole = figures(finish(Path(name) / "whole")), time.monotonic() - started
        click.echo(f"undisturbed: {whole:.0f} s")
        for number in range(times):
            folder, moment = Path(name) / str(number), draw.uniform(0.5, whole)
            process = start(folder)
            time.sleep(moment)
            over = process.poll() is not None
            if not over:
                os.kill(process.pid, signal.SIGKILL)  # this process alone: its workers have to see it by themselves
            process.communicate()
            stages = json.loads((folder / "manifest.json").read_text())["stages"] if (folder / "manifest.json").exists() else {}
            found = figures(finish(folder))
            same += found == expected
            what = "after it had ended" if over else f"with {len(stages)} stages done"
            click.echo(f"{number + 1}: killed after {moment:.1f} s {what}: {'the same figures' if found == expected else 'OTHER FIGURES'}")
    click.echo(f"{same} of {times} resumed to the same figures")
    sys.exit(same < times)


if __name__ == "__main__":
    main()

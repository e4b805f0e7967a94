"""Breaks the code in one place at a time and sees whether a test notices: `python -m scripts.mutate`.

scripts/mutations.toml lists the places: a file, a text that stands there once, what it is replaced by, and the nearest
tests. The tests run on a copy of the working tree; they have to pass before anything is broken. Exits 1 where a
mutation survives, and 2 where the list is out of date or a test fails by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import click

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("mutations.toml")
_FAILED = 1  # pytest's exit code where a test failed


@dataclass(frozen=True)
class Mutation:
    """`old` stands once in `file`; `tests` are files or node ids; `tier` is pytest's --tier for them."""

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    tier: str = "quick"


@dataclass(frozen=True)
class Outcome:
    """`noticed`: the first test that failed, None where none did."""

    mutation: Mutation
    noticed: str | None
    seconds: float


def read_mutations(file: Path = LIST) -> list[Mutation]:
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def stale(mutations: Sequence[Mutation], root: Path = ROOT) -> list[str]:
    """What of the list does not fit the tree any more."""
    found = []
    for mutation in mutations:
        file = root / mutation.file
        times = file.read_text(encoding="utf-8").count(mutation.old) if file.exists() else 0
        if times != 1:
            found.append(f"{mutation.file}: {mutation.old!r} stands there {times} times, not once")
        if mutation.old == mutation.new:
            found.append(f"{mutation.file}: {mutation.old!r} is replaced by itself")
        missing = [test for test in mutation.tests if not (root / test.partition("::")[0]).exists()]
        found += [f"{mutation.file}: {test} does not exist" for test in missing]
    return found


def copy_tree(target: Path) -> None:
    """What git knows of the working tree, with its changes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)


def run_tests(tree: Path, tests: Sequence[str], tier: str) -> tuple[int, str]:
    """pytest's exit code, and the first test that failed or the end of what it said."""
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--tier", tier, *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "CI": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, failed[1] if failed else (done.stdout + done.stderr)[-500:]


def attempt(mutation: Mutation, tree: Path) -> Outcome:
    file, started = tree / mutation.file, time.monotonic()
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        code, said = run_tests(tree, mutation.tests, mutation.tier)
    finally:
        file.write_text(whole, encoding="utf-8")
    if code not in (0, _FAILED) and not said.startswith("tests/"):  # a module that cannot be imported is noticed, too
        raise click.ClickException(f"{mutation.what}: pytest ended with {code}: {said}")
    return Outcome(mutation, said if code else None, time.monotonic() - started)


def check_unbroken(mutations: Sequence[Mutation], tree: Path) -> None:
    for tier in sorted({mutation.tier for mutation in mutations}):
        tests = sorted({test for mutation in mutations if mutation.tier == tier for test in mutation.tests})
        code, said = run_tests(tree, tests, tier)
        if code:
            raise click.ClickException(f"nothing is broken yet and a test fails: {said}")


@click.command()
@click.option("--only", default="", help="Those whose description or file holds this text.")
@click.option("--jobs", default=1, show_default=True, help="At a time, each on a copy of its own.")
@click.option("--unchecked", is_flag=True, help="Without running the tests on the unbroken tree first.")
def main(only: str, jobs: int, unchecked: bool) -> None:
    chosen = [mutation for mutation in read_mutations() if only in mutation.what or only in mutation.file]
    if problems := stale(chosen):
        click.echo("\n".join(problems), err=True)
        sys.exit(2)
    with tempfile.TemporaryDirectory(prefix="mutate-") as name, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            copy_tree(Path(name) / str(number))
            trees.put(Path(name) / str(number))
        if not unchecked:
            check_unbroken(chosen, Path(name) / "0")

        def one(mutation: Mutation) -> Outcome:
            tree = trees.get()
            try:
                return attempt(mutation, tree)
            finally:
                trees.put(tree)

        outcomes = []
        for outcome in pool.map(one, chosen):
            outcomes.append(outcome)
            verdict = f"killed by {outcome.noticed}" if outcome.noticed else "SURVIVED"
            click.echo(f"{outcome.mutation.what} ({outcome.mutation.file}): {verdict} [{outcome.seconds:.0f} s]")
    killed = sum(outcome.noticed is not None for outcome in outcomes)
    click.echo(f"{killed} of {len(outcomes)} killed")
    sys.exit(killed < len(outcomes))


if __name__ == "__main__":
    main()

"""The console script: the command line of harness, if the packages it needs are ours."""

from __future__ import annotations

import os
import sys

from harness_prune.names import hidden


def main() -> None:
    os.environ["PYTHONSAFEPATH"] = "1"  # processes that it starts take no module from the working folder
    run()


def run() -> None:
    """One line and exit 2 where a package is hidden; nothing of ours is imported before."""
    if reason := hidden():
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(2)
    from harness.cli.main import main as command_line

    command_line()

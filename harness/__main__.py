"""`python -m harness`: the command line."""

from harness_prune.command import run

run()

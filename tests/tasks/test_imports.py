"""What importing the graders must not do to the process that grades."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_graders_leaves_the_callers_random_numbers_alone() -> None:
    """The program inside the sandbox seeds them; it is read as text here, never imported."""
    code = "import random; s = random.getstate(); import tasks.grading; print(random.getstate() == s)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"

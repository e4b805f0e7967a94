"""The test suite on all cores: each file that starts engines in a process of its own, the others together, one process
a core.

`python scripts/run_tests.py [pytest's options]`. Long ones first; what passed is a line, what failed is shown whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_LONG = (  # by what they took on two cores
    "test_experiment",
    "test_recover",
    "test_live",
    "test_bench",
    "test_server",
    "test_pipeline",
    "test_launch_ray",
    "test_launch",
)


def main() -> int:
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    alone = [file for file in files if "pytest.mark.slow" in file.read_text(encoding="utf-8")]
    alone.sort(key=lambda file: _LONG.index(file.stem) if file.stem in _LONG else len(_LONG))
    together = [file for file in files if file not in alone]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        codes = list(
            pool.map(
                run, [*([file] for file in alone[: len(_LONG)]), together, *([file] for file in alone[len(_LONG) :])]
            )
        )
    return int(any(codes))


def run(files: list[Path]) -> int:
    started = time.monotonic()
    command = [sys.executable, "-m", "pytest", *sys.argv[1:], *map(str, files)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    name = str(files[0].relative_to(ROOT)) if len(files) == 1 else f"{len(files)} files without engines"
    failed = found.returncode not in (0, 5)  # 5: nothing selected
    summary = found.stdout.strip().splitlines()[-1:] or [""]
    print(f"{name}: {summary[0]} ({time.monotonic() - started:.0f} s)", flush=True)
    if failed:
        print(found.stdout, found.stderr, sep="\n", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

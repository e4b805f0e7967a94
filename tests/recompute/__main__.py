"""Prints the figures that differ."""

import json
import sys
from pathlib import Path

from tests.recompute import mismatches

if __name__ == "__main__":
    count, wrong = mismatches(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    for what, stored, again in wrong:
        print(f"{what}: {stored} stored, {again} computed again")
    print(f"{count} figures, {len(wrong)} differ")
    sys.exit(bool(wrong))

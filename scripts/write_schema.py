"""harness/run.schema.json: the JSON Schema of run.json. `make generate`"""

from __future__ import annotations

import json
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "harness" / "run.schema.json"

if __name__ == "__main__":
    from harness.pipeline.run_json import run_schema

    FILE.write_text(json.dumps(run_schema(), indent=1) + "\n", encoding="utf-8")

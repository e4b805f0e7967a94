"""The JSON Schemas of run.json (harness/run.schema.json) and of config files (docs/config.schema.json). `make
generate`
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUN, CONFIG = ROOT / "harness" / "run.schema.json", ROOT / "docs" / "config.schema.json"

if __name__ == "__main__":
    from harness.config.settings import config_schema
    from harness.pipeline.run_json import run_schema

    RUN.write_text(json.dumps(run_schema(), indent=1) + "\n", encoding="utf-8")
    CONFIG.write_text(config_schema(), encoding="utf-8")

from collections.abc import Mapping
from typing import Any

BENCH_DEFAULTS: Mapping[str, Any] = {
    "concurrency": (1, 8, 32, 128),
    "repeats": 5,
}  # more than a run takes beside other work

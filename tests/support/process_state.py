"""What a library call might leave behind in its caller's process. As a script: what the README's Python example leaves.

python tests/support/process_state.py README.md prints a JSON object: after what -> what is not as it was.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any


def process_state() -> dict[str, Any]:
    """By name; with what torch, lm-eval and tqdm have of it."""
    import huggingface_hub.constants
    import lm_eval.evaluator
    import numpy as np
    import torch.utils.collect_env
    from tqdm.std import tqdm

    modules: tuple[ModuleType, ...] = (torch, torch.cuda, torch.utils.collect_env, lm_eval.evaluator)
    return {
        "environment": dict(os.environ),
        "warning filters": list(warnings.filters),
        "log levels": {name: logging.getLogger(name).level for name in ("vllm", "transformers", "torch", "lm_eval")},
        "root logger": (logging.root.level, list(logging.root.handlers)),
        "random generators": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "progress bars": (vars(tqdm)["__init__"], tqdm.monitor_interval),
        "telemetry": huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY,
        "thread names": sorted(thread.name for thread in threading.enumerate()),
        "cores": os.sched_getaffinity(0),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "folder": Path.cwd(),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "lm_eval.utils.env.from_string": lm_eval.utils.env.from_string,
        **{f"{m.__name__}.{name}": value for m in modules for name, value in vars(m).items() if callable(value)},
    }


def changed(before: dict[str, Any]) -> list[str]:
    now = process_state()
    return [name for name, value in before.items() if now.get(name) != value]


@contextmanager
def _failing_lm_eval() -> Iterator[None]:
    import lm_eval

    def fail(*_arguments: Any, **_keywords: Any) -> None:
        raise ValueError("in the middle")

    kept, lm_eval.simple_evaluate = lm_eval.simple_evaluate, fail
    try:
        yield
    finally:
        lm_eval.simple_evaluate = kept


def main(readme: Path) -> None:
    import transformers  # noqa: F401
    import vllm  # noqa: F401  # what it changes when it is imported is its own

    (code,) = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found: dict[str, Any] = {}
    before = process_state()
    names: dict[str, Any] = {}
    exec(code, names)
    found["the example"] = changed(before)
    found["accuracy"] = names["result"]["mini_math"].value
    with _failing_lm_eval(), suppress(ValueError):
        names["h"].evaluate(names["ckpt"], tasks=["mini_math"])
        found["the failure"] = "did not happen"
    found["an exception"] = changed(before)
    names["h"].evaluate(names["ckpt"], tasks=["mini_math"], limit=2)  # another engine in the same process
    found["another engine"] = changed(before)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

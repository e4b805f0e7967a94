"""An environment in which no test can see what this machine, its user or an earlier run left."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

KEPT = ("HARNESS_DATA_DIR", "HARNESS_HOSTILE_DIR", "HARNESS_ALL_FAMILIES")  # they say what there is to test with
_FOREIGN = ("HARNESS_", "HF_", "HUGGINGFACE_", "TRANSFORMERS_", "VLLM_", "WANDB_", "MLFLOW_", "TRACKIO_", "XDG_")
# what vLLM found out about model classes, by the hash of their source: 15 s for each
_CACHE = Path(__file__).parents[2] / ".pytest_cache" / "vllm"
_TERMINAL = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def isolate() -> Path | None:
    """Before anything reads the environment: a new home folder, no settings of this project or of the libraries below.

    Workers inherit what the process that starts them has.

    Returns:
        The home folder, where it was made here; None in a worker.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return None
    for name in [name for name in os.environ if name.startswith(_FOREIGN) or name in _TERMINAL]:
        if name not in KEPT:
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="harness-tests-"))
    os.environ |= {
        "HOME": str(home),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis"),
        "HF_HUB_OFFLINE": "1",
        "VLLM_CACHE_ROOT": str(_CACHE),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or the engines of all workers share the first core
    }
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return home


def remove(home: Path | None) -> None:
    if home is not None:
        shutil.rmtree(home, ignore_errors=True)

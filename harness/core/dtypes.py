"""Number types by their names in safetensors files (BF16) and in torch, vLLM and config.json (bfloat16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Dtype:
    """A number type. `code`: its name in a safetensors header; `name`: its name in torch.

    exponent: a mask of the exponent's bits, all of which are set in infinity and NaN; None where a value is always
    finite, or where finiteness is not checked.
    """

    code: str
    name: str
    item_bytes: int
    exponent: int | None = None


_DTYPES = (
    Dtype("F64", "float64", 8, 0x7FF << 52),
    Dtype("F32", "float32", 4, 0xFF << 23),
    Dtype("BF16", "bfloat16", 2, 0xFF << 7),
    Dtype("F16", "float16", 2, 0x1F << 10),
    Dtype("F8_E4M3", "float8_e4m3fn", 1),
    Dtype("F8_E5M2", "float8_e5m2", 1),
    Dtype("F8_E4M3FNUZ", "float8_e4m3fnuz", 1),
    Dtype("F8_E5M2FNUZ", "float8_e5m2fnuz", 1),
    Dtype("F8_E8M0", "float8_e8m0fnu", 1),
    Dtype("C64", "complex64", 8),
    Dtype("I64", "int64", 8),
    Dtype("U64", "uint64", 8),
    Dtype("I32", "int32", 4),
    Dtype("U32", "uint32", 4),
    Dtype("I16", "int16", 2),
    Dtype("U16", "uint16", 2),
    Dtype("I8", "int8", 1),
    Dtype("U8", "uint8", 1),
    Dtype("BOOL", "bool", 1),
)
PACKED = ("F4", "F6_E2M3", "F6_E3M2")  # of quantised weights, smaller than a byte
BY_CODE: Mapping[str, Dtype] = {dtype.code: dtype for dtype in _DTYPES}
BY_NAME: Mapping[str, Dtype] = {dtype.name: dtype for dtype in _DTYPES}


def tensor_of(bits: npt.NDArray[Any], code: str) -> Any:
    """A writable torch tensor of the safetensors type `code` with the bits and the shape of an array."""
    import torch

    return torch.from_numpy(np.require(bits, requirements="W")).view(getattr(torch, BY_CODE[code].name))


def bits_of(tensor: Any) -> npt.NDArray[Any]:
    """The bits of a torch tensor as unsigned integers of its item size, in its shape."""
    import torch

    found: npt.NDArray[Any] = tensor.contiguous().view(getattr(torch, f"uint{8 * tensor.element_size()}")).numpy()
    return found


def code_of(tensor: Any) -> str:
    """The safetensors name of a torch tensor's type."""
    return BY_NAME[str(tensor.dtype).removeprefix("torch.")].code

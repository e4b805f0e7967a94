"""Counts what would be a copy between host and device, or a wait for the device, on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_FROM_DEVICE = {"cpu", "numpy", "tolist", "item", "__bool__", "__int__", "__float__", "__index__"}
_WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"}  # their result decides what comes next


class _Calls(TorchFunctionMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        places = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, torch.device | str)]
        if name in _FROM_DEVICE or (name in ("to", "cuda") and places):
            self.found[name] += 1
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        masks = args[1] if name in ("aten::index", "aten::index_put_") else ()
        if name in _WAITS or any(mask is not None and mask.dtype == torch.bool for mask in masks):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    found: Counter[str] = Counter()
    with _Calls(found), _Operators(found):
        yield found

"""A sweep's cell is another one where its engine computes in another dtype."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.sweeps.batch import cell_key
from pruning.checkpoint import open_model
from tests.support.models import TINY_MATH


def key(dtype: str) -> str:
    run: Any = SimpleNamespace(model=open_model(TINY_MATH), max_model_len=512, config=SimpleNamespace(dtype=dtype))
    return cell_key(run, "weights")


@pytest.mark.parametrize(("formats", "same"), [(("avx2",), "float32"), (("avx2", "amx_bf16"), "bfloat16")])
def test_auto_is_what_the_processor_computes_in(
    formats: tuple[str, ...], same: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("harness.core.processors.cpu_formats", lambda: formats)
    assert key("auto") == key(same)
    assert key("default") == key("float32") != key("bfloat16")

"""What the search of a joint plan says where the GPU is too small for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.core.errors import MeasurementError
from harness.sweeps.joint import search
from harness.sweeps.joint.search import ArmSearch


def test_a_gpu_that_is_too_small_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(search, "open_probe", full)
    found = object.__new__(ArmSearch)  # as far as it has to be made for this
    found.run = SimpleNamespace(spec=SimpleNamespace(arms=[SimpleNamespace(request=None)]))  # type: ignore[assignment]
    found._probe, found.scored, found.texts = None, None, []  # type: ignore[assignment]
    with pytest.raises(MeasurementError, match="GPU together; free some memory, or use --structure neuron"):
        found._opened()

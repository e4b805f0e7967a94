"""Without an answer of the Hub, its libraries are told once to take what they have."""

from __future__ import annotations

import datasets
import pytest
from huggingface_hub import constants

from harness.core.hub import only_cache_without_hub

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("offline", "said"), [(False, 1), (True, 0)])
def test_a_hub_that_does_not_answer_is_asked_once(
    offline: bool, said: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", offline)
    only_cache_without_hub.cache_clear()
    only_cache_without_hub()
    only_cache_without_hub()
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (True, True)
    assert capsys.readouterr().err.count("The Hub does not answer") == said
    only_cache_without_hub.cache_clear()

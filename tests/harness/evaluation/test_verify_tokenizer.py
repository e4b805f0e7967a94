"""--verify holds the tokenizer of an export against the dense model's, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.errors import MeasurementError
from harness.evaluation import verify_export
from harness.evaluation.verify_export import verify
from pruning.checkpoint import open_model
from pruning.export import export
from tests.support.models import build_model
from tests.support.pruned import plan_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("tokenizer_config.json", '"<|im_end|>"', '"<|im_start|>"', "another eos token"),
        ("tokenizer.json", '"type": "NFC"', '"type": "Lowercase"', "read 'Question: Tom .* as other tokens"),
    ],
)
def test_a_tokenizer_that_reads_otherwise_is_caught(
    file: str, old: str, new: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = build_model("llama", tmp_path / "dense")
    settings = dense / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "tokenizer_class": "PreTrainedTokenizerFast"}))
    plan = plan_for(dense)
    made = export(open_model(dense), plan, tmp_path / "pruned").path
    text = (made / file).read_text()
    assert old in text
    (made / file).write_text(text.replace(old, new))
    monkeypatch.setattr(verify_export, "load_masked", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(MeasurementError, match=f"tokenizer of .*pruned is not that of the dense model: .*{told}"):
        verify(open_model(dense), plan, tmp_path / "plan.safetensors", open_model(made))

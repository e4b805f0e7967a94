"""What stock vLLM makes of an elastic folder at a width: the tokens of the export of that width, in FP32.

It rests on what vLLM's loader does with weights that are wider than config.json says, which vLLM does not promise.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.core.types.pruning import NeuronScores
from harness.engine import narrow_loading
from harness.engine.vllm_engine import engine
from pruning.checkpoint import open_model
from pruning.elastic import narrowed, order_of, write_elastic
from pruning.families import FAMILIES
from pruning.loader import load_pruned
from pruning.plan import PlanRequest
from tests.support.engines import PROMPTS, SMALL, answers
from tests.support.models import TINY_MATH, build_model

WIDTHS = (448, 321, 80)  # of tiny-math's 640; one is odd
MORE_WIDTHS = (608, 512, 384, 256, 128)
CASES: list[Any] = [("tiny-math", width) for width in WIDTHS] + [("llama", 33)]
CASES += [pytest.param("tiny-math", width, marks=pytest.mark.thorough) for width in MORE_WIDTHS]
OTHERS = [
    (name, 60)
    for name, family in FAMILIES.items()
    if not family.tower and all(cut.parts == 1 for cut in family.cuts) and name != "llama"
]
if os.environ.get("HARNESS_ALL_FAMILIES"):
    CASES += OTHERS


def elastic(name: str, root: Path) -> Path:
    """An elastic folder with random scores."""
    folder = TINY_MATH if name == "tiny-math" else build_model(name, root / "dense", dtype="float32")
    dense = open_model(folder)
    table = np.random.default_rng(3).random((dense.shape.num_hidden_layers, dense.shape.intermediate_size))
    scores = NeuronScores({"smd": table.astype(np.float32)}, name, dense.fingerprint, "all", "calibration", "scores")
    return write_elastic(dense, order_of(scores, PlanRequest(0.0, metric="smd")), root / "elastic").path


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("name", "width"), CASES)
def test_a_width_answers_as_its_export(name: str, width: int, tmp_path: Path) -> None:
    folder = open_model(elastic(name, tmp_path))
    overrides = {"hf_overrides": {folder.family.width_key: width}}
    with engine(folder, replace(SMALL, dtype="float32", options=overrides)) as llm:
        assert llm.llm_engine.vllm_config.model_config.hf_config.to_dict()[folder.family.width_key] == width
        found = answers(llm)
    model = load_pruned(narrowed(folder, width, tmp_path / "narrow"), torch.float32)
    model.generation_config.eos_token_id = None
    expected = [
        model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False)[0, len(ids) :].tolist()
        for ids in PROMPTS
    ]
    assert found == expected


@pytest.mark.slow
def test_the_installed_loader_takes_the_leading_part() -> None:
    assert narrow_loading.loads_leading_part()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["load_merged_column_weight", "load_row_parallel_weight"])
def test_a_loader_that_refuses_or_takes_another_part_is_seen(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.model_executor.parameter import ModelWeightParameter

    def refuses(*_: object, **__: object) -> None:
        raise ValueError("other shape")

    def takes_the_end(self: object, loaded_weight: torch.Tensor, **_: object) -> None:
        rows, columns = self.data.shape  # type: ignore[attr-defined]
        self.data.copy_(loaded_weight.flip(0, 1)[:rows, :columns])  # type: ignore[attr-defined]

    for changed in (refuses, takes_the_end):
        monkeypatch.setattr(ModelWeightParameter, method, changed)
        assert not narrow_loading.loads_leading_part()

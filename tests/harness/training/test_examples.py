"""Several tasks and general text as training data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.models.registry import shape
from harness.pipeline.dry_run import recovery_cost
from harness.pipeline.resolve import resolve_recovery
from harness.training.examples import check_data, mixture_counts, rows_hash
from harness.training.fine_tuning import Defaults, gather, summary_of
from pruning.checkpoint import open_model
from tasks.registry import TASKS, training_items
from tests.support.models import TINY_MATH

DEFAULTS = Defaults(shape("tiny-math", "math"), "math", None, 0)


def gathered(folder: Path, mixture: str, *tasks: str, **settings: Any) -> dict[str, Any]:
    config = load_config(None, {"model": "tiny-math", "mixture": mixture, **settings})
    gather(open_model(TINY_MATH), [TASKS[name] for name in tasks], config.recovery, DEFAULTS, folder, config)
    return summary_of(folder)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=1),
    st.integers(1, 5000),
)
def test_counts_go_by_weight_and_none_is_lost(weights: dict[str, float], total: int) -> None:
    counts = mixture_counts(weights, total)
    assert sum(counts.values()) == total
    assert all(abs(counts[name] - total * weights[name] / sum(weights.values())) < 1 for name in weights)


@pytest.mark.slow
def test_a_mixture_holds_every_task_and_texts_without_a_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    summary = gathered(tmp_path / "data", "mini_math=3,mini_facts=5,text=2", "mini_math", samples=20)
    parts = summary["parts"]
    assert [(part["name"], part["examples"]) for part in parts] == [("mini_math", 6), ("mini_facts", 10), ("text", 4)]
    assert summary["examples"] == 20 and summary["tokens"] == sum(part["tokens"] for part in parts)
    assert summary["source"] == "mini_math (train) 6, mini_facts (train) 10, mini_texts (train) 4"
    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    rows = [json.loads(line) for line in (tmp_path / "data" / "train.jsonl").read_text().splitlines()]
    plain = [row for row in rows if "<|im_start|>" not in tokenizer.decode(row["input_ids"])]
    assert len(plain) == 4 and all(row["labels"] == row["input_ids"] for row in plain)
    assert rows.index(plain[0]) < 16  # in random order


@pytest.mark.slow
def test_a_source_with_fewer_items_than_its_share_is_repeated(tmp_path: Path) -> None:
    summary = gathered(tmp_path / "data", "mini_facts=1", "mini_facts", samples=2000)
    assert summary["examples"] == 2000 > (training_items(TASKS["mini_facts"]).items or 0)


@pytest.mark.slow
def test_no_test_item_of_any_task_of_the_mixture_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mini_facts is trained on and not evaluated, and one of its test items is among its training items."""
    task = TASKS["mini_facts"]
    tested = task.documents()["test"][:1]
    leaking = replace(task, training=replace(training_items(task), documents=lambda _n, _seed: ("leaking", tested)))
    monkeypatch.setattr("harness.training.examples.registry.find_task", lambda *_: leaking)
    with pytest.raises(UsageError, match="1 of 1 training items of leaking hold a test item"):
        gathered(tmp_path / "data", "mini_facts=1", "mini_math", samples=1)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mixture": "mini_math=1", "data": "generated"}, "give one"),
        ({"mixture": "mini_maths=1"}, "did you mean mini_math"),
        ({"mixture": "mini_math=1,similarity=1"}, "similarity has no training split"),
        ({"mixture": "mini_math=1000,text=1", "samples": 10}, "leaves text not one of 10 examples"),
    ],
)
def test_a_mixture_that_cannot_be_made_is_refused_first(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        check_data(RecoveryConfig(**settings))


@pytest.mark.parametrize("mixture", ["mini_math", "mini_math=0", "mini_math=-1", "mini_math=1,mini_math=2"])
def test_weights_are_positive_numbers_by_name(mixture: str) -> None:
    with pytest.raises(UsageError, match="mixture"):
        load_config(None, {"mixture": mixture})


def test_another_mixture_is_other_data() -> None:
    first, second = (RecoveryConfig(mixture={"mini_math": weight, "text": 1}) for weight in (1, 2))
    assert rows_hash(first, False) != rows_hash(second, False)


def test_the_tasks_of_a_mixture_are_evaluated_and_packed_rows_are_counted_as_such() -> None:
    settings = {"mixture": "mini_facts=2,mini_code=1,text=1", "samples": 4000, "epochs": 1, "batch": 1, "recover": True}
    spec = resolve_recovery(load_config(None, {**settings, "packing": True, "max_length": 1024}))
    assert [task.name for task in spec.tasks] == ["mini_facts", "mini_code"]
    found = recovery_cost(spec)
    assert found and found.examples == 4000 and found.steps < 1000

"""Which tasks a command takes: the target is scored, what else is named is evaluated only, and each is named once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config.settings import load_config
from harness.core.errors import UsageError
from harness.pipeline.named_tasks import named_task
from harness.pipeline.resolve import resolve, resolve_recovery, tasks_and_shape
from harness.pipeline.single_stage import evaluate_checkpoint
from harness.sweeps.dissociation.resolve import resolve_dissociation
from harness.sweeps.goal.resolve import resolve_goal
from harness.sweeps.grid import resolve_sweep
from tasks.registry import distractors
from tests.support.data import make_data_folder

UNSCORED = "exam has no item to score a model with"


def config(**options: Any) -> Any:
    return load_config(None, {"model": "tiny-math", **options})


@pytest.fixture()
def exam(tmp_path: Path) -> Path:
    """A folder with a task that has test items alone."""
    rows = [{"q": f"{i} + {i} =", "options": ["1", str(2 * i)]} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "exam.yaml").write_text(
        f"task: exam\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: q\ndoc_to_choice: options\n"
        "doc_to_target: 1\nmetric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    return folder


@pytest.mark.slow
def test_a_task_with_test_items_alone_is_evaluated_beside_the_target(exam: Path) -> None:
    beside = {"include_path": exam, "task": ("mini_math", "exam")}
    specs = [
        resolve(config(**beside)),
        resolve(config(**beside, recover=True)),
        resolve_recovery(config(**beside, recover=True)),
        resolve_sweep(config(**beside)),
        resolve_sweep(config(include_path=exam, task="mini_math", off_target="exam")),
        resolve_goal(config(**beside, max_loss=5)),
    ]
    for spec in specs:
        assert [(task.name, task.items) for task in spec.tasks][1] == ("exam", 6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resolver", "options"),
    [
        (resolve, {"task": "exam"}),
        (resolve, {"task": ("exam", "mini_math")}),
        (resolve_recovery, {"task": "exam", "recover": True}),
        (resolve_sweep, {"task": "exam", "off_target": "mini_math"}),
        (resolve_dissociation, {"task": ("mini_math", "exam")}),
    ],
)
def test_a_task_with_test_items_alone_cannot_be_scored(resolver: Any, options: dict[str, Any], exam: Path) -> None:
    with pytest.raises(UsageError, match=UNSCORED):
        resolver(config(include_path=exam, **options))


@pytest.mark.slow
def test_texts_of_every_task_decide_on_a_vocabulary(exam: Path) -> None:
    beside = {"include_path": exam, "task": ("mini_math", "exam"), "params": 400_000}
    joint = config(**beside, structure="joint", vocabulary=64)
    with pytest.raises(UsageError, match=UNSCORED):
        tasks_and_shape(joint, True)
    with pytest.raises(UsageError, match=UNSCORED):
        named_task(joint, "exam")  # as `harness vocabulary` looks up each
    assert len(tasks_and_shape(config(**beside, structure="joint"), True)[0]) == 2


@pytest.mark.parametrize("resolver", [resolve, resolve_sweep, resolve_dissociation, resolve_recovery])
def test_a_task_that_is_named_twice_is_refused(resolver: Any) -> None:
    with pytest.raises(UsageError, match="the task mini_math is named twice in --task"):
        resolver(config(task=("mini_math", "mini_facts", "mini_math")))


def test_a_target_that_is_off_target_too_is_refused() -> None:
    with pytest.raises(UsageError, match="the task mini_facts is named twice in --task, or in --off-target as well"):
        resolve_sweep(config(task="mini_facts", off_target=("mini_code", "mini_facts")))


def test_a_task_is_not_evaluated_twice_by_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the task mini_math is named twice"):
        evaluate_checkpoint(config(task=("mini_math", "mini_math")), tmp_path / "run", fresh=False)
    assert not (tmp_path / "run").exists()


def test_a_family_and_its_task_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA_DIR", str(make_data_folder(tmp_path)))
    with pytest.raises(UsageError, match="the task gsm8k_boxed is named twice"):
        resolve(config(model="qwen-7b", task=("gsm8k", "gsm8k_boxed")))


@pytest.mark.slow
def test_general_prompts_that_cannot_be_had_are_called_so(
    exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Hub cannot be reached, and no alias of ours says what is general for the model."""

    def unreachable(name: str, *_: object) -> None:
        raise UsageError(f"{name} cannot be loaded; set HARNESS_DATA_DIR")

    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    monkeypatch.setattr("tasks.data.hub_rows", unreachable)
    task = named_task(config(model=str(tmp_path), include_path=exam), "exam", scored=False)
    with pytest.raises(UsageError) as refused:
        distractors(task, 2, 42)
    assert str(refused.value) == (
        "the general prompts (distractors) that a scoring for exam needs beside the task's own, whatever the --metric: "
        "rajpurkar/squad cannot be loaded; set HARNESS_DATA_DIR"
    )

"""From settings to a recovered checkpoint: data, recipe, one process or two, and TRL's own command."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.config.recovery_settings import RecoveryConfig
from harness.config.settings import load_config
from harness.core.errors import MeasurementError, StorageError, UsageError
from harness.core.files import write_json
from harness.models.registry import shape
from harness.pipeline.dry_run import recovery_cost
from harness.pipeline.resolve import resolve_recovery
from harness.training import fine_tuning
from harness.training.fine_tuning import (
    Defaults,
    available_examples,
    check_dependencies,
    data_hash,
    expected_cost,
    gather,
    make_recipe,
    summary_of,
    write_checkpoint,
)
from harness.training.launch import CONFIGS, launch_command, load_job, run_job, save_job
from harness.training.original import original_of
from pruning.checkpoint import open_model
from pruning.export import export
from pruning.record import read_record
from recovery.cost import cost
from recovery.trainer import Job, history
from tasks.gsm8k.task import rows
from tasks.registry import TASKS
from tests.support.cli import PATIENCE, harness
from tests.support.data import make_data_folder
from tests.support.models import TINY_MATH, build_model
from tests.support.pruned import plan_keeping
from tests.support.training import RECIPE

DEFAULTS = Defaults(shape("tiny-math", "math"), "math", None, 0)


def gathered(folder: Path, *tasks: str, **settings: Any) -> dict[str, Any]:
    config = load_config(None, {"model": "tiny-math", "steps": 4, "batch": 8, **settings})
    wanted = [TASKS[name] for name in tasks or ("mini_math",)]
    gather(open_model(TINY_MATH), wanted, config.recovery, DEFAULTS, folder, config)
    return summary_of(folder)


@pytest.mark.parametrize("model_type", ["gemma3", "qwen2_5_vl"])
def test_a_vision_language_model_is_refused_before_any_work(model_type: str, tmp_path: Path) -> None:
    model = open_model(build_model(model_type, tmp_path))
    defaults = replace(DEFAULTS, shape=model.shape)
    with pytest.raises(UsageError, match=f"{model_type} is a vision-language model, which cannot be fine-tuned here"):
        make_recipe(RecoveryConfig(), defaults, 100)
    with pytest.raises(UsageError, match="save its text model alone"):
        check_dependencies(RecoveryConfig(), defaults, TASKS["mini_math"])


@pytest.mark.slow
def test_rows_hold_the_evaluations_prompt_and_the_worked_answer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    summary = gathered(tmp_path / "data")
    assert summary["source"] == "mini_math (train)" and summary["examples"] == 32 and summary["left_out"] == 0
    tokenizer = AutoTokenizer.from_pretrained(TINY_MATH)
    _, documents = TASKS["mini_math"].training.documents(32, 0)
    lines = (tmp_path / "data" / "train.jsonl").read_text().splitlines()
    for doc, line in zip(documents, lines, strict=True):
        expected = f"<|im_start|>user\n{doc['question']}<|im_end|>\n<|im_start|>assistant\n{doc['solution']}<|im_end|>"
        assert tokenizer.decode(json.loads(line)["input_ids"]) == expected


@pytest.mark.slow
def test_the_papers_rows_are_plain_text_under_headings_with_calculator_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 % of the training split; rows of a file have the frame as well."""
    from transformers import AutoTokenizer

    (tmp_path / "sets").mkdir()
    monkeypatch.setenv("HARNESS_DATA_DIR", str(make_data_folder(tmp_path / "sets")))
    paper, tokenizer = replace(DEFAULTS, preset="paper"), AutoTokenizer.from_pretrained(TINY_MATH)

    def texts(*tasks: str, **settings: Any) -> list[str]:
        config = load_config(None, {"model": "tiny-math", **settings}, "paper")
        gather(
            open_model(TINY_MATH), [TASKS[name] for name in tasks], config.recovery, paper, tmp_path / "data", config
        )
        lines = (tmp_path / "data" / "train.jsonl").read_text().splitlines()
        return [tokenizer.decode(json.loads(line)["input_ids"]) for line in lines]

    found = texts("gsm8k_boxed")
    assert len(found) == 54 and available_examples(RecoveryConfig(), paper, TASKS["gsm8k_boxed"]) == 6726
    row = next(row for row in rows("train") if any(row["question"] in text for text in found))
    steps, _, answer = row["answer"].partition("\n#### ")
    assert (
        "<<" in steps
        and (
            f"### Question:\n{row['question']}\n\n### Answer:\nPlease reason step by step, and put your final answer "
            f"within \\boxed{{}} on the last line.\n\n{steps}\n\n\\boxed{{{answer}}}\n{tokenizer.eos_token}"
        )
        in found
    )
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"prompt": "Why?", "completion": "So."}))
    assert texts("gsm8k_boxed", data=str(file)) == [f"### Question:\nWhy?\n\n### Answer:\nSo.{tokenizer.eos_token}"]


@pytest.mark.slow
def test_test_items_in_the_data_are_refused(tmp_path: Path) -> None:
    item = TASKS["mini_facts"].documents()["test"][3]
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"prompt": f"  {item['question'].upper()}!! ", "completion": "x"}) + "\n")
    with pytest.raises(UsageError, match=r"1 of 1 training items of mine\.jsonl.* hold a test item"):
        gathered(tmp_path / "data", "mini_math", "mini_facts", data=str(file))
    assert not (tmp_path / "data").exists()
    assert gathered(tmp_path / "data", "mini_math", data=str(file))["examples"] == 1


def test_a_task_without_training_items_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="similarity has no training split; give --data"):
        gathered(tmp_path / "data", "similarity")


def test_recipes_follow_settings_then_preset_then_size() -> None:
    plain = make_recipe(RecoveryConfig(), DEFAULTS, 4800)
    assert (plain.tuning, plain.steps, plain.batch, plain.precision, plain.processes) == ("full", 300, 16, "float32", 1)
    assert make_recipe(RecoveryConfig(epochs=2), DEFAULTS, 100).steps == 13
    paper = make_recipe(RecoveryConfig(), replace(DEFAULTS, preset="paper"), 7473)
    assert (paper.tuning, paper.learning_rate, paper.batch, paper.micro_batch, paper.lora_dropout) == (
        "lora",
        2e-5,
        8,
        2,
        0.1,
    )
    assert paper.steps == -(-3 * 7473 // 8) and (paper.lora_rank, paper.lora_alpha) == (16, 32)
    code = make_recipe(RecoveryConfig(learning_rate=1e-5), replace(DEFAULTS, preset="paper", kind="code"), 160)
    assert (code.learning_rate, code.steps, code.lora_dropout) == (1e-5, 20, 0.05)
    assert make_recipe(RecoveryConfig(steps=20), replace(DEFAULTS, preset="paper"), 7473).steps == 20
    assert (paper.warmup, paper.least_rate, paper.weight_decay) == (0.03, 0.0, 0.01)
    assert (plain.warmup, plain.least_rate, plain.weight_decay) == (0.05, 0.05, 0.0)
    large = make_recipe(RecoveryConfig(), replace(DEFAULTS, shape=shape("qwen-7b", "math")), 4800)
    assert (large.tuning, large.micro_batch, large.gradient_checkpointing) == ("lora", 2, True)


def test_what_does_not_fit_is_refused_before_training(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    job, expected = make_job(), cost(DEFAULTS.shape, RECIPE, 50)
    monkeypatch.setattr(fine_tuning, "available_bytes", lambda: 1 << 20)
    with pytest.raises(MeasurementError, match=r"needs about [\d.]+ .iB and [\d.]+ \w+ are free; give --tuning lora"):
        fine_tuning.check_room(job, expected)
    monkeypatch.setattr(fine_tuning, "available_bytes", lambda: 1 << 40)
    with pytest.raises(StorageError, match="free some disk space"):
        fine_tuning.check_room(job, replace(expected, disk_bytes=1 << 60))


KEEP = [np.arange(64)] * 3


def test_the_original_of_a_pruned_checkpoint_is_found_or_missed(ragged_model: Path, random_model: Path) -> None:
    dense = open_model(random_model)
    assert original_of(dense) == dense
    record = read_record(ragged_model)
    assert record is not None
    for model, match in (
        (str(TINY_MATH), "has other weights by now"),
        ("nowhere-to-be-found", "older version"),
        ("/nowhere/to/be", "/nowhere/to/be, which .*ragged was made from, is gone"),
    ):
        (ragged_model / "pruning.json").write_text(json.dumps({**record, "model": model}))
        with pytest.raises(UsageError, match=match):
            original_of(open_model(ragged_model))
    (ragged_model / "pruning.json").write_text(json.dumps({**record, "model": str(random_model)}))
    assert original_of(open_model(ragged_model)) == dense


@pytest.mark.parametrize("needs", [["--data", "generated"], ["--distill", "0.5"]])
def test_a_dry_run_misses_the_original_too(needs: list[str], random_model: Path, tmp_path: Path) -> None:
    plan = replace(plan_keeping(random_model, KEEP), model=str(tmp_path / "gone"), model_kind="folder")
    export(open_model(random_model), plan, tmp_path / "pruned")
    words = ("recover", "pruned", "--task", "mini_math", "--steps", "2", "--dry-run")
    assert harness(*words).returncode == 0
    found = harness(*words, *needs)
    assert found.returncode == 2 and f"{tmp_path}/gone, which pruned was made from, is gone" in found.stderr


def test_the_teacher_is_counted_at_its_own_size(make_job: Any, random_model: Path, tmp_path: Path) -> None:
    dense, out = open_model(random_model), tmp_path / "pruned"
    export(dense, plan_keeping(random_model, KEEP), out)
    pruned = open_model(out)
    job = make_job(distill=0.5, teacher=random_model)
    write_json(job.data / "summary.json", {"tokens": 100, "examples": 10})
    assert expected_cost(job, pruned).weights_bytes == 4 * (pruned.parameters + dense.parameters)
    settings = {"model": str(out), "task": ("mini_math",), "distill": 0.5, "steps": 2, "tuning": "full"}
    found = recovery_cost(resolve_recovery(load_config(None, settings)))
    assert found and found.weights_bytes == 4 * (pruned.parameters + dense.parameters)


def test_the_original_of_a_model_pruned_twice_is_the_first(random_model: Path, tmp_path: Path) -> None:
    """Also where an older version did it, whose record names the step before only."""
    plan = replace(plan_keeping(random_model, KEEP), model=str(random_model))
    once = export(open_model(random_model), plan, tmp_path / "once")
    plan = replace(plan_keeping(once.path, [np.arange(40)] * 3, 64), model=str(once.path))
    twice = export(once, plan, tmp_path / "twice")
    assert original_of(twice) == open_model(random_model)
    record = read_record(twice.path)
    assert record is not None
    old = {**record, "model": str(once.path), "model_hash": once.fingerprint}
    (twice.path / "pruning.json").write_text(json.dumps({k: v for k, v in old.items() if k != "steps"}))
    assert original_of(open_model(twice.path)) == open_model(random_model)
    circle = {**old, "model": str(twice.path), "model_hash": twice.fingerprint}
    (twice.path / "pruning.json").write_text(json.dumps(circle))
    with pytest.raises(UsageError, match="made from each other"):
        original_of(open_model(twice.path))


def test_a_fine_tuned_model_that_is_pruned_keeps_how_it_was_tuned(random_model: Path, tmp_path: Path) -> None:
    """In file, record and card; it counts as pruned, and as fine-tuned again only after another training."""
    trained = tmp_path / "trained"
    shutil.copytree(random_model, trained)
    tuning = {"source": "mini_math (train)", "steps": 60}
    (trained / "recovery.json").write_text(json.dumps(tuning))
    assert open_model(trained).recovered
    pruned = export(open_model(trained), plan_keeping(trained, KEEP), tmp_path / "pruned")
    assert json.loads((pruned.path / "recovery.json").read_text()) == tuning and not pruned.recovered
    assert pruned.record is not None and pruned.record["steps"][0]["recovery"] == tuning
    assert "After fine-tuning on mini_math (train)" in (pruned.path / "README.md").read_text()
    twice = export(pruned, plan_keeping(pruned.path, [np.arange(40)] * 3, 64), tmp_path / "twice")
    assert json.loads((twice.path / "recovery.json").read_text()) == tuning and not twice.recovered
    (twice.path / "recovery.json").write_text(json.dumps({**tuning, "steps": 70}))
    assert open_model(twice.path).recovered


@given(st.integers(1, 64), st.integers(0, 16), st.sampled_from([None, 1, 2]))
def test_any_number_of_gpus_shares_any_batch(batch: int, gpus: int, micro: int | None) -> None:
    with patch.object(fine_tuning, "gpus", lambda: gpus):
        if micro is None or batch % micro == 0:
            found = make_recipe(RecoveryConfig(batch=batch, micro_batch=micro), DEFAULTS, 100)
            assert 1 <= found.processes <= max(1, gpus) and found.accumulation >= 1


def test_settings_that_cannot_work_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorboard" else real(name, *rest)
    )
    task = TASKS["mini_math"]
    for settings, match in (
        ({"steps": 5, "epochs": 1.0}, "give one"),
        ({"data": str(tmp_path / "none.jsonl")}, "cannot be read"),
        ({"distill": 0.5, "packing": True}, "--packing"),
        ({"data": "mine.jsonl.gz"}, "cannot be read"),
        ({"accelerate_config": tmp_path / "none.yaml"}, "does not exist"),
        ({"report_to": "tensorboard"}, "pip install tensorboard"),
    ):
        with pytest.raises(UsageError, match=match):
            check_dependencies(RecoveryConfig(**settings), DEFAULTS, task)


def test_other_data_under_the_same_name_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    hashes = []
    for answer in "ab":
        file.write_text(json.dumps({"prompt": "q", "completion": answer}))
        hashes.append(data_hash(RecoveryConfig(data=str(file)), DEFAULTS))
    own = data_hash(RecoveryConfig(), DEFAULTS)
    assert hashes[0] != hashes[1] != own != data_hash(RecoveryConfig(samples=3), DEFAULTS)
    assert own != data_hash(RecoveryConfig(), replace(DEFAULTS, preset="paper")), "other rows in another frame"


def test_a_recovered_checkpoint_keeps_everything_but_the_weights(
    make_job: Any, ragged_model: Path, tmp_path: Path
) -> None:
    state = run_job(make_job(model=ragged_model), 1)
    out = tmp_path / "out"
    how = {"source": "somewhere", "tuning": "full", "steps": 6, "batch": 4, "learning_rate": 1e-3, "distill": 0.0}
    write_checkpoint(open_model(ragged_model), state, out, {**how, "end_token": 77})
    before, after = ({p.name for p in folder.rglob("*") if p.is_file()} for folder in (ragged_model, out))
    assert after == before | {"recovery.json"}
    stops = [
        json.loads((folder / "generation_config.json").read_text())["eos_token_id"] for folder in (ragged_model, out)
    ]
    assert stops == [1, [1, 77]]  # the engine stops where an answer was taught to end
    for name in ("config.json", "pruning.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (ragged_model / name).read_bytes()
    assert (
        open_model(out).widths == (70, 33, 51) and "somewhere: 6 steps of 4 examples" in (out / "README.md").read_text()
    )


@pytest.mark.slow
@pytest.mark.thorough
def test_trls_own_command_trains_the_same_way(make_job: Any) -> None:
    job = make_job(tuning="lora")
    ours = history(run_job(job, 1))
    settings = yaml.safe_load((job.folder / "sft.yaml").read_text())
    assert settings["learning_rate"] == job.recipe.learning_rate and settings["lora_r"] == job.recipe.lora_rank
    command = [
        sys.executable,
        "-m",
        "trl.cli.main",
        "sft",
        "--config",
        str(job.folder / "sft.yaml"),
        "--use_cpu",
        "true",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-2000:]
    state = Path(settings["output_dir"]) / f"checkpoint-{job.recipe.steps}" / "trainer_state.json"
    theirs = [entry["loss"] for entry in json.loads(state.read_text())["log_history"] if "loss" in entry]
    assert theirs == pytest.approx([entry["loss"] for entry in ours], rel=1e-3)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["full", pytest.param("lora", marks=pytest.mark.thorough)])  # DDP, and FSDP2
def test_two_processes_train_as_one_does(make_job: Any, tuning: str, tmp_path: Path) -> None:
    """The embedding is the head here; the launched training is whole, and its outcome a plain checkpoint."""
    model = build_model("qwen2", tmp_path / "tied", tie=True)
    alone = history(run_job(make_job("alone", model=model, tuning=tuning), 1))
    state = run_job(make_job("two", model=model, tuning=tuning, processes=2, micro_batch=2), 1)
    assert [entry["loss"] for entry in history(state)] == pytest.approx([entry["loss"] for entry in alone], rel=1e-3)
    write_checkpoint(open_model(model), state, tmp_path / "out", {"end_token": 1})
    assert open_model(tmp_path / "out").parameters == open_model(model).parameters


@pytest.mark.thorough
@pytest.mark.slow
def test_an_error_in_a_launched_process_is_said_in_one_line(make_job: Any) -> None:
    with pytest.raises(MeasurementError, match=r"the launched training failed: training failed at step \d+: loss nan"):
        run_job(make_job("launched", steps=12, learning_rate=1e30), 1, CONFIGS / "ddp.yaml")


def test_the_launch_uses_the_shipped_configuration_or_the_users(make_job: Any, tmp_path: Path) -> None:
    job: Job = make_job(processes=2, micro_batch=2)
    assert "fsdp2.yaml" in " ".join(launch_command(job, None)) and "--num_processes 2" in " ".join(
        launch_command(job, None)
    )
    assert str(tmp_path / "mine.yaml") in launch_command(job, tmp_path / "mine.yaml")
    save_job(job)
    assert load_job(job.folder / "job.json") == job


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bfloat16"), (False, "float16")])
def test_on_a_gpu_without_bf16_training_takes_fp16(bf16: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that a T4 supports BF16, which it emulates, unless it is asked for more."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16)
    assert make_recipe(RecoveryConfig(), DEFAULTS, 4800).precision == expected

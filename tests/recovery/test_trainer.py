"""One training: its loss, what stops it, and what a kill leaves."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import MeasurementError
from pruning.loader import load_pruned
from recovery import trainer
from recovery.trainer import (
    Job,
    Teacher,
    answer_loss,
    check_bands,
    discard_stale_checkpoints,
    history,
    last_state,
    seconds,
    states,
    step_of,
    train,
)
from tests.support.training import rows

pytestmark = pytest.mark.slow

IGNORED = -100
MakeJob = Callable[..., Job]


def fit(job: Job) -> Path:
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(1)  # two wait for each other where another process has a core
    teacher = Teacher(load_pruned(job.teacher, "float32")) if job.teacher else None
    return train(job, load_pruned(job.model, "float32").train(), AutoTokenizer.from_pretrained(job.model), teacher)


def padded(chosen: list[dict[str, list[int]]]) -> dict[str, Any]:
    import torch

    longest = max(len(row["input_ids"]) for row in chosen)
    fill = {"input_ids": 0, "labels": IGNORED}
    batch = {
        key: torch.tensor([row[key] + [value] * (longest - len(row[key])) for row in chosen])
        for key, value in fill.items()
    }
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in chosen])
    return {**batch, "attention_mask": mask}


def naive_nats(model: Any, row: dict[str, list[int]], other: Any = None) -> list[float]:
    """Token by token, without padding: -log p of each answer token, or the divergence from `other` there."""
    import torch
    from torch.distributions import Categorical, kl_divergence

    with torch.no_grad():
        distributions = [
            Categorical(logits=m(torch.tensor([row["input_ids"]])).logits[0]) for m in (model, other) if m is not None
        ]
    found = []
    for position, label in enumerate(row["labels"]):
        if label != IGNORED:
            if other is None:
                found.append(-float(distributions[0].log_prob(torch.tensor(label))[position - 1]))
            else:
                found.append(float(kl_divergence(distributions[1], distributions[0])[position - 1]))
    return found


@pytest.fixture(scope="module")
def models(random_model: Path) -> tuple[Any, Any]:
    import torch

    student, teacher = load_pruned(random_model, torch.float32), load_pruned(random_model, torch.float32)
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return student, teacher


def test_the_loss_is_the_mean_nats_of_the_answers_tokens(models: tuple[Any, Any]) -> None:
    student, _ = models
    chosen = rows(5)
    nats = [value for row in chosen for value in naive_nats(student, row)]
    assert answer_loss(student, None, padded(chosen), 0.0).item() == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    assert answer_loss(student, None, padded(chosen), 0.0, items=7).item() == pytest.approx(sum(nats) / 7, rel=1e-5)


def test_distillation_adds_the_divergence_from_the_teacher(models: tuple[Any, Any]) -> None:
    student, teacher = models
    chosen = rows(4)
    nats = [value for row in chosen for value in naive_nats(student, row)]
    divergence = [value for row in chosen for value in naive_nats(student, row, teacher)]
    expected = 0.3 * sum(nats) / len(nats) + 0.7 * sum(divergence) / len(divergence)
    assert answer_loss(student, Teacher(teacher), padded(chosen), 0.7).item() == pytest.approx(expected, rel=1e-4)
    assert answer_loss(student, Teacher(student), padded(chosen), 1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_a_student_with_fewer_tokens_is_taught_over_those_that_both_have(models: tuple[Any, Any]) -> None:
    """Naive: each token's place in the teacher's vocabulary looked up, its distribution cut and normalised again."""
    import torch

    student, teacher = models
    used = sorted({token for row in rows(4) for token in row["input_ids"]})
    numbers = torch.tensor([*reversed(used), -1])  # the last row of the student's vocabulary is no token
    small, place = _with_rows(student, numbers), {token: row for row, token in enumerate(numbers.tolist())}
    asked = [
        (row["input_ids"], [i - 1 for i, label in enumerate(row["labels"]) if label != IGNORED]) for row in rows(4)
    ]
    nats = []
    with torch.no_grad():
        for ids, positions in asked:
            new = torch.tensor([[place[token] for token in ids]])
            mine = small(new).logits[0][positions, :-1].log_softmax(-1)
            aims = teacher(torch.tensor([ids])).logits[0][positions][:, numbers[:-1]].log_softmax(-1)
            nats += (aims.exp() * (aims - mine)).sum(-1).tolist()
    renamed = [
        {key: [place.get(token, IGNORED) for token in row[key]] for key in ("input_ids", "labels")} for row in rows(4)
    ]
    batch = padded(renamed)
    found = answer_loss(small, Teacher(teacher, numbers), batch, 1.0).item()
    assert found == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def _with_rows(model: Any, numbers: Any) -> Any:
    """A copy whose vocabulary are these rows of the model's."""
    import copy

    import torch

    small = copy.deepcopy(model)
    whole = model.get_input_embeddings().weight.detach()
    head = model.get_output_embeddings().weight.detach()
    small.resize_token_embeddings(len(numbers))
    with torch.no_grad():
        small.get_input_embeddings().weight.copy_(whole[numbers])
        small.get_output_embeddings().weight.copy_(head[numbers])
    return small


def test_scaled_and_capped_logits_stay_the_models_own(tmp_path: Path) -> None:
    import torch

    from tests.support.models import build_model

    for family in ("gemma2", "granite"):
        model = load_pruned(build_model(family, tmp_path / family), torch.float32)
        nats = [value for row in rows(3) for value in naive_nats(model, row)]
        assert answer_loss(model, None, padded(rows(3)), 0.0).item() == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def test_gradients_are_those_of_the_whole_logits(models: tuple[Any, Any]) -> None:
    import torch

    student, _ = models
    batch = padded(rows(3))
    answer_loss(student, None, batch, 0.0).backward()
    found = [parameter.grad.clone() for parameter in student.parameters()]
    student.zero_grad()
    student(**batch).loss.backward()
    assert all(torch.allclose(a, p.grad, atol=1e-5) for a, p in zip(found, student.parameters(), strict=True))
    student.zero_grad()


def test_our_loss_is_trls(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [entry["loss"] for entry in history(fit(make_job("ours")))]
    monkeypatch.setattr(trainer, "_trainer_class", lambda *_: __import__("trl").SFTTrainer)
    stock = [entry["loss"] for entry in history(fit(make_job("stock")))]
    assert ours == pytest.approx(stock, rel=1e-3) and len(ours) == 6


@pytest.mark.parametrize(
    "changes", [{"tuning": "lora", "learning_rate": 1e-2}, {"micro_batch": 2}, {"gradient_checkpointing": True}]
)
def test_ways_to_train_lower_the_loss(make_job: MakeJob, changes: dict[str, Any]) -> None:
    job = make_job(steps=30, **changes)
    losses = [entry["loss"] for entry in history(fit(job))]
    assert losses[-1] < 0.8 * losses[0] and seconds(job) > 0


def test_accumulated_and_checkpointed_steps_are_the_same_steps(make_job: MakeJob) -> None:
    plain = [entry["loss"] for entry in history(fit(make_job("plain")))]
    for name, changes in {"accumulated": {"micro_batch": 1}, "checkpointed": {"gradient_checkpointing": True}}.items():
        assert [entry["loss"] for entry in history(fit(make_job(name, **changes)))] == pytest.approx(plain, rel=1e-4), (
            name
        )


def test_packed_examples_do_not_see_each_other(make_job: MakeJob) -> None:
    """All 24 rows in one step, with a learning rate that changes nothing: the loss is that of the rows one by one."""
    unpacked = history(fit(make_job("unpacked", steps=1, batch=24, micro_batch=24, learning_rate=1e-12)))[0]["loss"]
    packed = history(fit(make_job("packed", steps=1, batch=8, micro_batch=8, learning_rate=1e-12, packing=True)))[0][
        "loss"
    ]
    assert packed == pytest.approx(unpacked, rel=1e-4)


def test_widths_of_their_own_are_trained(make_job: MakeJob, ragged_model: Path) -> None:
    from safetensors import safe_open

    for tuning in ("full", "lora"):
        state = fit(
            make_job(
                tuning, model=ragged_model, tuning=tuning, steps=30, learning_rate=1e-2 if tuning == "lora" else 1e-3
            )
        )
        losses = [entry["loss"] for entry in history(state)]
        assert losses[-1] < 0.8 * losses[0]
    with safe_open(state / "adapter_model.safetensors", "pt") as file:
        widths = {file.get_tensor(name).shape[1] for name in file.keys() if "down_proj.lora_A" in name}  # noqa: SIM118
    assert len(widths) > 1


def test_states_of_the_curve_keep_weights_and_only_the_last_can_be_gone_on_from(make_job: MakeJob) -> None:
    job = make_job(steps=12, curve=1)
    fit(job)
    assert [step_of(state) for state in states(job)] == [*job.recipe.curve_steps, 10, 12]
    first, *last = states(job)
    assert (first / "model.safetensors").exists() and not (first / "optimizer.pt").exists()
    assert all((state / "optimizer.pt").exists() for state in last)


def test_a_finished_training_is_not_repeated(make_job: MakeJob) -> None:
    state = fit(make_job())
    stamp = (state / "model.safetensors").stat().st_mtime_ns
    assert fit(make_job()) == state and (state / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_loss(make_job: MakeJob) -> None:
    whole = history(fit(make_job("whole", steps=40, tuning="lora", lora_dropout=0.1)))
    job = make_job("killed", steps=40, tuning="lora", lora_dropout=0.1)
    code = (
        "import sys, time; from pathlib import Path; from harness.training.launch import load_job; "
        "from tests.recovery.test_trainer import fit\n"
        "from recovery import trainer\nkeep = trainer.thin_out\n"
        "trainer.thin_out = lambda job: (keep(job), time.sleep(0.3))\nfit(load_job(Path(sys.argv[1])))"
    )
    from harness.training.launch import save_job

    save_job(job)
    process = subprocess.Popen([sys.executable, "-c", code, str(job.folder / "job.json")], stderr=subprocess.PIPE)
    limit = time.monotonic() + 120
    while not states_on_disk(job) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    last = last_state(job)
    assert last is not None and step_of(last) < 40
    (job.states / "checkpoint-39").mkdir()  # as a kill while saving leaves it
    (job.states / "checkpoint-39" / "adapter_model.safetensors").write_bytes(b"half")
    (job.folder / "inputs.txt").write_text("the same")
    discard_stale_checkpoints(job, "the same")
    assert not (job.states / "checkpoint-39").exists() and last_state(job) == last
    found = history(fit(job))
    assert [entry["step"] for entry in found] == list(range(1, 41))
    assert [entry["loss"] for entry in found] == pytest.approx([entry["loss"] for entry in whole], rel=1e-4)


def states_on_disk(job: Job) -> list[Path]:
    return list(job.states.glob("checkpoint-*/trainer_state.json"))


BREAKS_AT = 12


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_state(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the states on disk none is kept that no sane loss followed."""
    job = make_job(steps=24)
    real = trainer.answer_loss
    steps = iter(range(1, 100))
    monkeypatch.setattr(
        trainer, "answer_loss", lambda *given: real(*given) * (math.nan if next(steps) == BREAKS_AT else 1.0)
    )
    with pytest.raises(
        MeasurementError, match=r"failed at step 12: loss nan.*the state after step \d+ is kept.*lower --learning-rate"
    ):
        fit(job)
    last = last_state(job)
    assert last is not None and 0 < step_of(last) < BREAKS_AT - 1
    loss = answer_loss(load_pruned(last, "float32"), None, padded(rows(4)), 0.0)
    assert math.isfinite(loss.item()) and loss.item() < 10


def test_gradients_that_stay_large_stop_and_one_alone_does_not(make_job: MakeJob) -> None:
    job, norms = make_job(), [1.0] * 20
    check_bands(job, 21, 2.0, 500.0, norms)
    for step in range(22, 30):
        check_bands(job, step, 2.0, 1.0, norms)
    with pytest.raises(
        MeasurementError, match=r"training failed at step 3\d: gradient norm .*, before 1; no state had been saved yet"
    ):
        for step in range(30, 40):
            check_bands(job, step, 2.0, 500.0, norms)


def test_falling_gradients_are_no_explosion(make_job: MakeJob) -> None:
    norms: list[float] = []
    for step in range(200):
        check_bands(make_job(), step, 1.0, 1000 * 0.95**step, norms)
    assert len(norms) == 200


def test_states_of_another_training_are_not_gone_on_from(make_job: MakeJob) -> None:
    job = make_job()
    fit(job)
    discard_stale_checkpoints(job, "something else")
    assert states(job) == [] and seconds(job) == 0


def test_a_state_with_a_damaged_record_is_not_gone_on_from(make_job: MakeJob) -> None:
    job = make_job()
    for step, text in ((3, '{"global_step": 3, "log_history": []}'), (6, '{"global_step": ')):
        (job.states / f"checkpoint-{step}").mkdir(parents=True)
        (job.states / f"checkpoint-{step}" / "trainer_state.json").write_text(text)
    last = last_state(job)
    assert (
        last is not None
        and step_of(last) == 3
        and json.loads((last / "trainer_state.json").read_text())["global_step"] == 3
    )

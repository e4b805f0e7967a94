"""Training with TRL's SFTTrainer: resumes from the last complete state, checks loss and gradients, saves states."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from harness.core.bounded_read import read_json, read_json_object
from harness.core.errors import MeasurementError, UsageError
from harness.core.files import write_json, write_text
from harness.core.jsonl import read_rows
from recovery.data import FILE
from recovery.recipe import Recipe, lora_settings, sft_settings

_STATE = "trainer_state.json"  # the last file of a state that the trainer writes
_CLOCK, _INPUTS = "seconds.json", "inputs.txt"
_RESUMING = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
_EXPLOSION = 100.0  # times the earlier median that counts as exploded
_WINDOW = 55  # steps that are compared
_RECENT = 5  # of them, the last, which must all be large
_LEAST_EARLIER = 10  # earlier steps needed for a comparison


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        folder: Where states, log and settings are kept.
        data: A folder with train.jsonl, rows of input_ids and labels.
        teacher: The dense model to distil from; None without distillation.
    """

    folder: Path
    model: Path
    data: Path
    recipe: Recipe
    teacher: Path | None = None

    @property
    def states(self) -> Path:
        return self.folder / "trainer"


@dataclass(frozen=True)
class Teacher:
    """The dense model to distil from.

    Attributes:
        rows: Its token id of each row of the student's vocabulary, a LongTensor, -1 for a row that is no token; None
            where both have the same vocabulary.
    """

    model: Any
    rows: Any = None


def train(
    job: Job,
    model: Any,
    tokenizer: Any,
    teacher: Teacher | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Path:
    """Trains `model` to the recipe's last step and returns the folder of its final state (adapter or all weights).

    Raises:
        MeasurementError: The loss is not finite, or the gradients explode; earlier states are kept.
    """
    from datasets import Dataset
    from transformers import PrinterCallback
    from trl import SFTConfig

    last = last_state(job)
    if last and step_of(last) >= job.recipe.steps:
        return last
    rows = read_rows(job.data / FILE)
    settings = SFTConfig(
        **sft_settings(job.recipe, job.states),
        disable_tqdm=True,
        use_cpu=_on_cpu(),
        dataloader_pin_memory=not _on_cpu(),
        include_num_input_tokens_seen="non_padding",
    )
    with _no_progress_bars():
        trainer = _trainer_class(teacher, job.recipe.distill)(
            model=model,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=_adapter(job.recipe),
            callbacks=_callbacks(job, advance),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    final = last_state(job)
    if final is None or step_of(final) < job.recipe.steps:
        raise MeasurementError(f"training ended before step {job.recipe.steps}; run the same command again to resume")
    return final


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Of datasets, whose setting is the whole process's."""
    from datasets import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    shown = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def states(job: Job) -> list[Path]:
    """Complete states, oldest first."""
    return [folder for folder in sorted(job.states.glob("checkpoint-*"), key=step_of) if _is_complete(folder)]


def discard_stale_checkpoints(job: Job, inputs: str) -> None:
    """Removes what a training cannot resume from: incomplete states, and states of a training on other `inputs` (any
    text).
    """
    bound = job.folder / _INPUTS
    if not bound.exists() or bound.read_text(encoding="utf-8") != inputs:
        shutil.rmtree(job.states, ignore_errors=True)
        (job.folder / _CLOCK).unlink(missing_ok=True)
        write_text(bound, inputs)
    whole = states(job)
    for folder in job.states.glob("checkpoint-*"):
        if folder not in whole:
            shutil.rmtree(folder)


def _is_complete(folder: Path) -> bool:
    try:
        return bool(read_json_object(folder / _STATE)["global_step"])
    except (OSError, UsageError, KeyError):
        return False


def last_state(job: Job) -> Path | None:
    found = states(job)
    return found[-1] if found else None


def seconds(job: Job) -> float:
    """Seconds spent in training up to the last state, over all starts."""
    file = job.folder / _CLOCK
    return float(read_json(file)) if file.exists() else 0.0


def step_of(state: Path) -> int:
    return int(state.name.rpartition("-")[2])


def history(state: Path) -> list[dict[str, Any]]:
    """What was logged at every step up to a state: step, loss, grad_norm, learning_rate, num_input_tokens_seen."""
    logged = read_json_object(state / _STATE)["log_history"]
    return [entry for entry in logged if "loss" in entry]


def _on_cpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _adapter(recipe: Recipe) -> Any:
    from peft import LoraConfig

    return LoraConfig(**lora_settings(recipe), task_type="CAUSAL_LM") if recipe.tuning == "lora" else None


def _trainer_class(teacher: Teacher | None, distill: float) -> Any:
    """SFTTrainer, with our loss on a CPU, where its tiled loss takes two thirds of a step, and with a teacher."""
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if teacher is None and not _on_cpu():
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            loss = answer_loss(model, teacher, inputs, distill, num_items_in_batch)
            shared = self.args.average_tokens_across_devices and num_items_in_batch is not None
            loss = loss * self.accelerator.num_processes if shared else loss
            return (loss, None) if return_outputs else loss

    return Trainer


def answer_loss(model: Any, teacher: Teacher | None, inputs: Any, distill: float, items: Any = None) -> Any:
    """Mean over the answer's tokens of (1 - distill) * cross entropy + distill * KL(teacher, model), in nats.

    The divergence is of the distributions over the tokens that both have.

    Args:
        items: Tokens to average over; those of `inputs` if None.
    """
    import torch
    from torch.nn.functional import cross_entropy

    inputs = dict(inputs)
    labels = inputs.pop("labels")[:, 1:]
    asked = torch.nn.functional.pad(labels != -100, (0, 1))  # the position before each answer token
    with _head_only_at(model, asked):
        logits = model(**inputs, use_cache=False).logits[0].float()
    loss = cross_entropy(logits, labels[labels != -100], reduction="sum")
    if teacher is not None:
        loss = (1 - distill) * loss + distill * _divergence(logits, teacher, inputs, asked)
    return loss / torch.as_tensor(asked.sum() if items is None else items).clamp(min=1)


def _divergence(logits: Any, teacher: Teacher, inputs: Mapping[str, Any], asked: Any) -> Any:
    """Sum over the answer's tokens of KL(teacher, model). logits: the model's, [positions, vocabulary]."""
    import torch
    from torch.nn.functional import kl_div, log_softmax

    if teacher.rows is not None:
        inputs = {**inputs, "input_ids": teacher.rows[inputs["input_ids"]].clamp(min=0)}  # padding may be no token
    with torch.no_grad(), _head_only_at(teacher.model, asked):
        aims = teacher.model(**inputs, use_cache=False).logits[0].float()
    if teacher.rows is not None:
        shared = teacher.rows >= 0
        logits, aims = logits[:, shared], aims[:, teacher.rows[shared]]
    return kl_div(log_softmax(logits, -1), log_softmax(aims, -1), reduction="sum", log_target=True)


@contextmanager
def _head_only_at(model: Any, asked: Any) -> Any:
    """Limits the LM head to these positions, [batch, length] -> [1, positions]; the model still scales and caps its
    logits.
    """
    head = getattr(model, "module", model).get_output_embeddings()  # below DistributedDataParallel
    handle = head.register_forward_pre_hook(lambda _, arguments: (arguments[0][asked][None], *arguments[1:]))
    try:
        yield
    finally:
        handle.remove()


def _callbacks(job: Job, advance: Callable[[int], None]) -> list[Any]:
    from transformers import TrainerCallback

    norms: list[float] = []
    before, started = seconds(job), time.perf_counter()

    class Watch(TrainerCallback):  # event: settings, state, control
        def on_train_begin(self, *event: Any, **_: Any) -> None:
            advance(event[1].global_step)

        def on_step_end(self, *_: Any, **__: Any) -> None:
            advance(1)

        def on_log(self, *event: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                check_bands(job, event[1].global_step, float(logs["loss"]), float(logs.get("grad_norm", 0.0)), norms)

        def on_save(self, *event: Any, **_: Any) -> None:
            if event[1].is_world_process_zero:
                write_json(job.folder / _CLOCK, before + time.perf_counter() - started)
                thin_out(job)

    return [Watch()]


def check_bands(job: Job, step: int, loss: float, norm: float, norms: list[float]) -> None:
    """Raises MeasurementError where loss or gradient is not finite, or gradients stay a hundred times above their
    median.

    A single large gradient is clipped and harmless. `norms`: the norms of earlier steps, to which this one is added.
    """
    norms.append(norm)
    before, now = norms[-_WINDOW:-_RECENT], norms[-_RECENT:]
    exploded = len(before) >= _LEAST_EARLIER and median(now) > _EXPLOSION * median(before)
    if math.isfinite(loss) and math.isfinite(norm) and not exploded:
        return
    good = []
    for state in states(job):
        if step_of(state) < step - (_RECENT if exploded else 1):  # before the loss or gradient went wrong
            good.append(state)
        else:
            shutil.rmtree(state, ignore_errors=True)
    last = good[-1] if good else None
    kept = f"the state after step {step_of(last)} is kept in {last}" if last else "no state had been saved yet"
    what = (
        f"gradient norm {median(now):.3g}, before {median(before):.3g}"
        if math.isfinite(loss + norm)
        else f"loss {loss}, gradient norm {norm}"
    )
    raise MeasurementError(f"training failed at step {step}: {what}; {kept}. Give a lower --learning-rate")


def thin_out(job: Job) -> None:
    """Keeps the last two states resumable, the weights alone of the curve's states, and removes the others."""
    for folder in states(job)[:-2]:
        if step_of(folder) not in job.recipe.curve_steps:
            shutil.rmtree(folder)
            continue
        for file in folder.iterdir():
            if file.name in _RESUMING or file.name.startswith("rng_state"):
                file.unlink()

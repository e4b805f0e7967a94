"""The dense model that a pruned checkpoint was made from: it teaches, and it answers for generated data."""

from __future__ import annotations

from pathlib import Path

from harness.config.recovery_settings import RecoveryConfig
from harness.core.errors import UsageError
from harness.core.types.model import ModelKind
from harness.models.recorded import check_present, locate_recorded
from pruning.checkpoint import ModelFolder
from pruning.record import RECORD, read_record


def needs_original(config: RecoveryConfig) -> bool:
    """Whether a training with these settings needs it."""
    return config.data == "generated" or bool(config.distill)


def check_original(config: RecoveryConfig, checkpoint: Path) -> None:
    """Raises UsageError where it is needed and was a folder or file that is gone; reads pruning.json alone."""
    record = read_record(checkpoint) if needs_original(config) else None
    if record:
        check_present(record["model"], record.get("model_kind") or "unknown", checkpoint)


def original_of(model: ModelFolder, most_steps: int = 16) -> ModelFolder:
    """The dense model that a pruned checkpoint was made from first, the model itself where it was not pruned.

    Raises UsageError where it is not available, or its weights have changed.
    """
    record = model.record
    if record is None:
        return model
    if not most_steps:
        raise UsageError(f"{model.path} was made from models that were made from each other; correct {RECORD}")
    kind: ModelKind = record.get("model_kind") or "unknown"
    found = locate_recorded(record["model"], kind, record["model_hash"], model.path)
    return original_of(found, most_steps - 1)  # one that an older version pruned twice names the step before

"""The errors that users can cause. Each message is one line: what is wrong, where, and what to do."""

from __future__ import annotations

import re

from harness.core.secrets import redacted


def first_line(error: BaseException) -> str:
    """The first line that says something of another library's error message, without keys and tokens."""
    lines = [line.strip() for line in str(error).strip().splitlines()] or [repr(error)]
    if re.fullmatch(r"\d+ validation errors? for .+", lines[0]):  # pydantic: the reason follows, with its own details
        reason, *_ = re.split(r" \[type=| For further information", " ".join(lines[1:]), maxsplit=1)
        return redacted(f"{lines[0]}: {reason.removeprefix('Value error, ')}")
    if re.fullmatch(r"(Class v|V)alidation error for (field|validator) .+:", lines[0]):  # huggingface_hub
        return redacted(" ".join(lines[:2]))
    return redacted(lines[0])


class HarnessError(Exception):
    """Something failed; the command line prints the message as one line and exits with `exit_code`."""

    exit_code = 1


class UsageError(HarnessError):
    """The request itself is wrong: unknown name, impossible ratio, settings that do not fit the run directory."""

    exit_code = 2


class UnsupportedModelError(HarnessError):
    """The architecture cannot be pruned here, or the checkpoint is incomplete or damaged."""


class StorageError(HarnessError):
    """The run directory is locked, or the disk is full."""


class MeasurementError(HarnessError):
    """The engine or an evaluation returned something that cannot be a result."""

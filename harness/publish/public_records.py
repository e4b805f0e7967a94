"""Records of a checkpoint as they are sent: of a folder of this machine they name the last part only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.core.bounded_read import parse_json, read_bytes, read_json_object
from pruning.export import PLAN_COPY
from pruning.record import RECORD
from reports.figures import public_path

_MOST_BYTES = 64 << 20  # of a plan; one of 80 layers of 53,248 neurons has 16 MiB


def public_source(file: Path) -> Path | str | bytes:
    """The file itself; of pruning.json and of a plan that name a folder of this machine, a copy that does not."""
    if file.name == RECORD:
        return _public_record(file)
    is_plan = file.parent.name == Path(PLAN_COPY).parent.name and file.suffix == ".safetensors"
    return _public_plan(file) if is_plan else file


def _public_record(file: Path) -> Path | str:
    record = read_json_object(file)
    steps = record.get("steps")
    entries = [record, *(step for step in (steps if isinstance(steps, list) else ()) if isinstance(step, dict))]
    renamed = [_rename(entry) for entry in entries]
    return f"{json.dumps(record, indent=1)}\n" if any(renamed) else file


def _public_plan(file: Path) -> Path | bytes:
    """The neurons stay as they are."""
    try:
        raw = read_bytes(file, _MOST_BYTES)
        size = int.from_bytes(raw[:8], "little")
        header = parse_json(raw[8 : 8 + size])
        renamed = _rename(header["__metadata__"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return file  # what is no plan names no model
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + raw[8 + size :] if renamed else file


def _rename(entry: dict[str, Any]) -> bool:
    """Cuts the path of a model to its last part; whether there was one."""
    name = entry.get("model")
    if not isinstance(name, str) or public_path(name) == name:
        return False
    entry["model"] = public_path(name)
    return True

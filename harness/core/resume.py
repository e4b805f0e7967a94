"""The command that resumes a run, from its manifest, which may be a foreign one."""

from __future__ import annotations

import shlex
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from harness.core.text import visible

_RESUMED = ("run", "sweep", "dissociate", "recover", "eval", "bench", "serve")  # the commands that keep a run directory


def typed_again(manifest: Mapping[str, Any], command: str, known: Container[str]) -> str | None:
    """A command as it was typed, with the settings and in the folder of then; None where it is none of harness.

    Without --fresh, which would start over, and without a key, which is not kept. Of a manifest that somebody else
    wrote nothing but a command of harness comes back, with settings that harness knows.

    Args:
        manifest: Of the run directory.
        command: The command line in it.
        known: The names of settings that may be given in the environment.
    """
    words = shlex.split(command)
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if word != "--fresh" and "--api-key" not in (before, word.partition("=")[0])
    ]
    if kept[:1] != ["harness"] or kept[1:2] not in [[name] for name in _RESUMED]:
        return None
    settings = [
        f"HARNESS_{name.upper()}={shlex.quote(value)}"
        for name, value in (manifest.get("environment") or {}).items()
        if name in known
    ]
    folder = manifest.get("folder")
    elsewhere = ["cd", shlex.quote(folder), "&&"] if folder and folder != str(Path.cwd()) else []
    line = " ".join([*elsewhere, *settings, shlex.join(kept)])
    return line if line == visible(line) and "\n" not in line else None  # else it would not be copied as it stands

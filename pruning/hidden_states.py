"""The hidden states of the calibration batches between two layers: in memory, or in files where they are large."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.core.bounded_read import check_regular
from harness.core.errors import UsageError
from harness.core.files import atomic_path

_NAME = re.compile(r"hidden-(\d{4})")


class HiddenStates:
    """One tensor [batch, tokens, hidden_size] per batch, before layer `layer`.

    folder: For files; None where all stay in memory and nothing is saved.
    """

    def __init__(self, folder: Path | None, in_files: bool = False) -> None:
        self.folder, self.in_files, self.layer = folder, in_files, 0
        self.kept: dict[int, Any] = {}

    def read(self, number: int, device: Any) -> Any:
        return _load(self._place(self.layer) / _file(number), device) if self.in_files else self.kept[number]

    def write(self, number: int, states: Any) -> None:
        """The states of a batch after the current layer."""
        if self.in_files:
            self._next.mkdir(parents=True, exist_ok=True)
            _save(states, self._next / _file(number))
        else:
            self.kept[number] = states

    def advance(self, layer: int) -> None:
        """Every batch has been written: these are the states before `layer`."""
        if self.in_files:
            shutil.rmtree(self._place(layer), ignore_errors=True)
            self._next.rename(self._place(layer))
            if layer > 1:  # those one layer before stay until what was measured there is saved
                shutil.rmtree(self._place(layer - 2), ignore_errors=True)
        self.layer = layer

    def save(self, last: bool = False) -> None:
        """Keeps the states in files, so that another process can go on from here, and removes those of other layers.

        last: No layer follows, so that it is enough to know how far the walk came.
        """
        if self.folder is None:
            return
        if not self.in_files:
            with atomic_path(self._place(self.layer), replaces=True) as scratch:
                scratch.mkdir()
                for number, states in () if last else self.kept.items():
                    _save(states, scratch / _file(number))
        for other in set(self.saved()) - {self.layer}:
            shutil.rmtree(self._place(other), ignore_errors=True)

    def saved(self) -> list[int]:
        """The layers before which states were saved."""
        names = [path.name for path in self.folder.iterdir()] if self.folder and self.folder.is_dir() else []
        return sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)

    def resume(self, layer: int, devices: Callable[[int], Any]) -> None:
        """Takes the states that were saved before `layer`; `devices`: batch -> where its states go."""
        self.layer = layer
        if not self.in_files:
            self.kept = {number: _load(self._place(layer) / _file(number), devices(number)) for number in self.kept}

    def remove(self) -> None:
        """Removes all files."""
        if self.folder:
            for place in (self._next, *map(self._place, self.saved())):
                shutil.rmtree(place, ignore_errors=True)

    def _place(self, layer: int) -> Path:
        assert self.folder is not None, "hidden states in files need a folder"
        return self.folder / f"hidden-{layer:04d}"

    @property
    def _next(self) -> Path:
        assert self.folder is not None, "hidden states in files need a folder"
        return self.folder / "next"


def _file(number: int) -> str:
    return f"{number:06d}.safetensors"


def _save(states: Any, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"hidden": states.contiguous().cpu()}, path)


def _load(path: Path, device: Any) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_regular(path)
        return load_file(path, device=str(device))["hidden"]
    except (OSError, SafetensorError, KeyError) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove {path.parents[1]} and score again") from error

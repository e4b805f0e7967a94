"""Tables of ours that installed packages add to, by entry points."""

from __future__ import annotations

import functools
import importlib.metadata
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from harness.core.errors import UsageError, first_line

T = TypeVar("T")


class Installed(Mapping[str, T], Generic[T]):
    """Our objects by name, then those of installed packages; a name of ours stays ours. Names alone cost no import."""

    def __init__(self, own: Mapping[str, T | str], group: str, kind: str, fits: Callable[[str, Any], bool]) -> None:
        """The table.

        Args:
            own: name -> an object, or where it is ("module:attribute").
            group: Of the entry points, whose names are those of the table.
            kind: What an object is, for messages.
            fits: Whether a name and a loaded object are right.
        """
        self._own, self._group, self._kind, self._fits = own, group, kind, fits
        self._told: set[str] = set()

    @functools.cached_property
    def _others(self) -> Mapping[str, str]:
        return {each.name: each.value for each in importlib.metadata.entry_points(group=self._group)}

    def __getitem__(self, name: str) -> T:
        if name not in self._own:
            return self._load(name, self._others[name])
        found = self._own[name]
        return pkgutil.resolve_name(found) if isinstance(found, str) else found

    def _load(self, name: str, place: str) -> T:
        """Raises UsageError where an object of another package is missing, fails or is something else."""
        try:
            found: T = pkgutil.resolve_name(place)
        except Exception as error:  # whatever the other package raises
            raise UsageError(
                f"the {self._kind} {name} of an installed package cannot be loaded: {first_line(error)}"
            ) from error
        if not self._fits(name, found):
            raise UsageError(
                f"{place}, the entry point {name} in {self._group}, is no {self._kind} of that name; mend its package"
            )
        return found

    def loadable(self) -> Iterator[tuple[str, T]]:
        """Names and objects, for what no single one was asked for; one that cannot be loaded is left out, with a line
        said once.
        """
        for name in self:
            try:
                found = self[name]
            except UsageError as error:
                if name not in self._told:
                    from harness.core.progress import say  # rich draws a random number when it is imported

                    self._told.add(name)
                    say(f"left out: {error}")
            else:
                yield name, found

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *self._others]))

    def __len__(self) -> int:
        return len(list(iter(self)))

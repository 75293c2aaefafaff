"""A table that anybody may add to: entries by name, each declared where it is written, by the package itself or by a plug-in module."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Generic, Protocol, TypeVar

from ablations.runtime.errors import UserError


class Named(Protocol):
    """What an entry must have: `name`, by which it is asked for."""

    @property
    def name(self) -> str: ...


Entry = TypeVar("Entry", bound=Named)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class OpenTable(Generic[Entry]):
    """Entries by name, kept in `entries`, in the order in which they were registered.

    `kind` says in messages what an entry is, as in "metric".
    """

    def __init__(self, kind: str, entries: dict[str, Entry]):
        self._kind, self._entries = kind, entries

    def register(self, entry: Entry) -> Entry:
        """Enters it and returns it. The same entry again is harmless: a module may be imported twice.

        Raises UserError for a name that another entry has, and for one that cannot be written on a command line or in a file's name.
        """
        if not isinstance(entry.name, str) or not _NAME.fullmatch(entry.name):
            raise UserError(f"a {self._kind} cannot be called {entry.name!r}: take letters, digits and _ . - alone")
        known = self._entries.get(entry.name)
        if known is not None and _identity(known) != _identity(entry):
            raise UserError(f"two different {self._kind}s are called {entry.name!r}: give the one of your plug-in another name")
        self._entries[entry.name] = entry
        return entry

    def entries(self) -> dict[str, Entry]:
        """All of them, by name."""
        return dict(self._entries)


def _identity(entry: Any) -> list[tuple[str, object]]:
    """What makes an entry the same as another: its values, and of its functions where they are defined rather than the objects."""
    values = ((item.name, getattr(entry, item.name)) for item in dataclasses.fields(entry))
    return [(name, _place(value) if callable(value) else value) for name, value in values]


def _place(function: Any) -> tuple[object, object]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", repr(function))

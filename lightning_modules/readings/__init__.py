"""Readings of adaptive feature extraction (AFE), an open table: what `afe.reading` may be.

The paper names a dynamic weight network and soft dynamic weights, and published neither formula nor code; each reading is one way to
understand it. A reading is a file of this folder, called as the reading, with its class as `READING`; a plug-in adds one from outside by
`register`. Listing the names imports no torch, since the config does it.

A reading is an `adaptive_features.Reading` made by `READING(width, settings)`: `width` of OpenCLIP's joint space, `settings` as
`settings.AFESettings`. It says which vectors of a picture it reads, and no others are cached.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Any

# Chosen by manipulation checks, by a rule that was fixed before: docs/reconstruction.md.
DEFAULT_READING = "position_values"
_REGISTERED: dict[str, tuple[Any, str]] = {}


def register(name: str, reading: type | str) -> None:
    """Add a reading: its class, or "module:Class" to import it only when it is used. The same again is harmless.

    Raises ValueError where the name is no lower-case word, or is taken.
    """
    if not (name.isidentifier() and name == name.lower()):
        raise ValueError(f"AFE reading {name!r}: the name must be a lower-case word, as in patches")
    if name in _built_in() or _REGISTERED.get(name, (reading,))[0] != reading:
        raise ValueError(f"AFE reading {name}: there is another one of this name")
    _REGISTERED.setdefault(name, (reading, sys._getframe(1).f_globals.get("__name__", "")))


def reading_names() -> tuple[str, ...]:
    """Every reading's name: this folder's in alphabetical order, then the registered ones."""
    return (*_built_in(), *_REGISTERED)


def reading_named(name: str) -> type:
    """The class of a reading. Raises ValueError for a name that is none's."""
    if name not in reading_names():
        raise ValueError(f"no AFE reading is called {name!r}; there are {', '.join(reading_names())}")
    if name not in _REGISTERED:
        return importlib.import_module(f"{__name__}.{name}").READING
    reading = _REGISTERED[name][0]
    if not isinstance(reading, str):
        return reading
    module, _, cls = reading.partition(":")
    return getattr(importlib.import_module(module), cls)


def plugin_of(name: str) -> str:
    """The module that registered a reading; "" for this folder's."""
    return _REGISTERED[name][1] if name in _REGISTERED else ""


def _built_in() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))

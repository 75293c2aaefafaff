"""Pictures of every mode, format and layout that Pillow opens: read as a viewer shows them."""

from __future__ import annotations

from pathlib import Path

from faults.bench import Kind, Tried
from helpers.random_pictures import try_pictures as _try_pictures


def try_pictures(seed: int, count: int, folder: Path) -> Tried:
    problems, tried = _try_pictures(seed, count)
    return Tried("pictures", sum(tried.values()), problems)


KIND = Kind("pictures", try_pictures, short=60, about="every mode, format, orientation, profile and transparency")

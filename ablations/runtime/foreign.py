"""Files and names that somebody else may have made, or that are damaged: looking at them raises one kind of error, whatever is in them.

Paths that are too long, that hold a NUL, that may not be looked at or that go in a circle are simply not there. JSON is bounded in depth,
its numbers are finite and its texts are Unicode: what passes here can be walked, computed with and written.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from ablations.runtime.errors import one_line

MOST_DEPTH = 40
_MOST_BITS = 64


class Unreadable(ValueError):
    """A file that is not what it should be; the message is one short line that says why, without the file's name."""


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; no path makes it raise."""
    return os.path.isfile(path)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a folder; no path makes it raise."""
    return os.path.isdir(path)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Whether there is anything of this name; no path makes it raise."""
    return os.path.exists(path)


def within(folder: str | os.PathLike[str], pattern: str) -> list[Path]:
    """What lies in a folder and fits a pattern of glob, in order; nothing where there is no such folder."""
    return sorted(Path(folder).glob(pattern)) if is_folder(folder) else []


def readable(text: object) -> str:
    """A text that can be written as UTF-8: what has no Unicode, such as a byte of a file's name, becomes "?"."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def shown(text: object, most: int = 120) -> str:
    """A text as a message has it: on one line, as UTF-8, and cut where it is long."""
    line = one_line(readable(text))
    return line if len(line) <= most else f"{line[: most - 20]}...{line[-17:]}"


def parse_json(content: bytes | str) -> Any:
    """The content as JSON. Raises Unreadable for what is none, is nested too deeply, or holds numbers or texts that nothing can hold."""
    try:
        found = json.loads(content, parse_constant=_refuse_constant)
    except RecursionError:
        raise Unreadable(f"it is nested more than {MOST_DEPTH} deep") from None
    except ValueError as error:  # no UTF-8 and numbers of thousands of digits are among them
        raise Unreadable(f"it is no JSON ({one_line(error)[:100]})") from error
    _check(found)
    return found


def read_json(path: str | os.PathLike[str], of: type | None = None) -> Any:
    """The JSON of a file, which must be an object of class `of` (dict, list) if one is given.

    Raises Unreadable as `parse_json` does and for a file that cannot be read, FileNotFoundError where there is none: also for names
    that no file can have.
    """
    if not is_file(path):
        raise FileNotFoundError(f"there is no file {readable(path)!r:.160}")
    try:
        found = parse_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(f"it cannot be read ({error.strerror or one_line(error)})") from error
    if of is not None and not isinstance(found, of):
        raise Unreadable(f"it holds no JSON {'object' if of is dict else of.__name__}")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _check(found: Any) -> None:
    """Walks level by level, so that no depth is too much for it."""
    level = [found]
    for _ in range(MOST_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following += item.values()
                following += item.keys()
            elif isinstance(item, list):
                following += item
            elif isinstance(item, str):
                if not item.isascii() and readable(item) != item:
                    raise Unreadable("a text in it is no Unicode")
            elif isinstance(item, float):
                if not math.isfinite(item):
                    raise Unreadable("a number in it is too large")
            elif isinstance(item, int) and item.bit_length() > _MOST_BITS:
                raise Unreadable("a number in it is too large")
        if not following:
            return
        level = following
    raise Unreadable(f"it is nested more than {MOST_DEPTH} deep")

"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_LINE_EVERY_S = 15.0


def duration(seconds: float) -> str:
    """A length of time as people say it: "40 s", "25 min", "3 h 20 min", "2 days 4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} days {hours % 24} h" if hours % 24 else f"{hours // 24} days"


def size_in_words(size: float) -> str:
    """A number of bytes as people say it, in the largest unit of which there is one: "120 bytes", "3.2 MB", "21.5 GB"."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size:.0f} bytes"


def track(
    items: Iterable[Item], total: int, what: str, say: Callable[[str], None], size: Callable[[Item], int] = lambda _: 1
) -> Iterator[Item]:
    """Yields `items`, showing how much of `total` is done; `size` says how much one item is. Work under 15 s says nothing."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(total=total, desc=what, delay=1.0) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    start = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - said >= _LINE_EVERY_S:
            said = now
            say(f"{what}: {done}/{total}, about {(now - start) / done * (total - done):.0f} s left")

"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_LINE_EVERY_S = 15.0


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

"""What a cell says while it works: progress bars on a terminal, plain lines elsewhere, nothing where that was asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")
# A plain line at most every so many seconds: enough to see that it lives, not enough to fill a log.
_LINE_SECONDS = 5.0


class Console:
    """`mode` is auto, bar, plain or none; auto is a bar on a terminal and plain lines elsewhere."""

    def __init__(self, mode: str = "auto"):
        self.mode = mode if mode != "auto" else ("bar" if sys.stdout.isatty() else "plain")
        self._rich = RichConsole(highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line."""
        if self.mode != "none":
            self._rich.print(text, markup=False)

    def table(self, table: Table) -> None:
        """A result: printed in every mode, at its own width."""
        RichConsole(highlight=False, width=None if sys.stdout.isatty() else 120).print(table)

    def track(self, items: Iterable[T], total: int, label: str) -> Iterator[T]:
        """Pass `items` on and show how many of `total` are done."""
        if self.mode == "bar":
            with self.progress() as progress:
                task = progress.add_task(label, total=total, note="")
                for item in items:
                    yield item
                    progress.advance(task)
            return
        started = spoken = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if self.mode == "plain" and (done == total or now - spoken >= _LINE_SECONDS):
                spoken = now
                left = (now - started) / done * (total - done)
                self.say(f"{label}: {done}/{total}" + (f", {left:.0f} s left" if done < total else f" in {now - started:.0f} s"))

    def progress(self) -> Progress:
        """A bar with count, time left and a note."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._rich,
        )

"""SIGTERM and SIGINT as a request to stop at the next safe point: after a training step, between batches of pictures."""

from __future__ import annotations

import signal
from types import FrameType


class Preempted(Exception):
    """The cell was asked to stop; what is done is on disk, and the next run goes on from there."""

    exit_code = 143


class StopRequest:
    """Remembers that a signal came. `install()` returns self; `check(where)` raises Preempted once one has come.

    A second signal is not held back: it ends the process at once.
    """

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)

    def check(self, where: str) -> None:
        if self.requested:
            raise Preempted(where)

"""Calls that somebody else may take any time for, made one after the other in a thread that nobody has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class SideThread:
    """A thread that makes calls in the order in which they come. It never keeps the process alive, and a call must not raise."""

    def __init__(self, name: str):
        self._calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def soon(self, call: Callable[[], object]) -> None:
        """Have it called after what was asked for before."""
        self._calls.put(call)

    def wait(self, seconds: float) -> bool:
        """Wait until all that was asked for before is done; whether it is."""
        done = threading.Event()
        self.soon(done.set)
        return done.wait(seconds)

    def end(self) -> None:
        """End the thread once all that was asked for is done; nothing may be asked for any more."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

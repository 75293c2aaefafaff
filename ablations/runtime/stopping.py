"""SIGTERM, Ctrl-C, and the SIGUSR1 and SIGUSR2 of schedulers: what is done is kept, and the process ends within seconds.

Everywhere but in training the signal ends the work at once, which is safe because files appear whole or not at all. While
training it is held back until the optimiser step is over, so that a checkpoint can be saved that resumes bit for bit.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from ablations.runtime.early_signals import EXIT_CODE, SIGNALS

# A scheduler's notice, which may come to a process twice: to its group, and passed on by the script that started it.
_NOTICES = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))


class Preempted(BaseException):
    """The cell was asked to stop. Not an Exception: no library may mistake it for a fault of its own and go on."""

    exit_code = EXIT_CODE


@contextmanager
def signals_wait() -> Iterator[None]:
    """A process of multiprocessing that is started within the block hears of signals from its own `StopRequest().install()` on.

    Until then it imports, and Ctrl-C at a terminal, which goes to all of them, would have it print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting it lets some signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopRequest:
    """Turns signals into Preempted. `install()` returns self; a second SIGTERM or Ctrl-C ends the process at once."""

    def __init__(self) -> None:
        self.requested = False
        self._held = False
        self._previous: dict[signal.Signals, object] = {}
        self._unraisable = sys.unraisablehook

    def install(self) -> StopRequest:
        if not self._previous:
            self._unraisable, sys.unraisablehook = sys.unraisablehook, self._where_nothing_can_be_raised
        self._previous = {number: signal.signal(number, self._remember) for number in SIGNALS}
        if hasattr(signal, "pthread_sigmask"):  # what came while this process started, see `signals_wait`, comes now
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def restore(self) -> None:
        """Give the signals back, where they were taken."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        if self._previous and sys.unraisablehook == self._where_nothing_can_be_raised:
            sys.unraisablehook = self._unraisable

    def reclaim(self) -> None:
        """Take the signals back from Lightning, whose handler would end the process at a point of its own choosing."""
        if self._previous and not self.requested:
            for number in SIGNALS:
                signal.signal(number, self._remember)

    @contextmanager
    def held_back(self, where: str) -> Iterator[None]:
        """Within the block a signal is only remembered; the block asks `check` where it may stop."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.check(where)

    def check(self, where: str) -> None:
        """Raise Preempted if a signal came."""
        if self.requested:
            raise Preempted(where)

    def _where_nothing_can_be_raised(self, unraisable: sys.UnraisableHookArgs) -> None:
        """A signal in the callback of a weak reference, or while something is deleted: the next `check` says it, and Python need not."""
        if not isinstance(unraisable.exc_value, Preempted):
            self._unraisable(unraisable)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN if other in _NOTICES else signal.SIG_DFL)
        if not self._held:
            raise Preempted("between steps")

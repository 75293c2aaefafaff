"""Signals in the first moments of a command, while Python still imports: it ends at once, without a traceback.

Whatever starts a command installs this first; so it imports next to nothing itself. `stopping` takes over once the command begins.
"""

import os
import signal

# What asks a process to stop: a scheduler before a time limit (USR1, USR2, as the job says) or at its end, and Ctrl-C.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT") if hasattr(signal, name))
EXIT_CODE = 143
_before: dict = {}


def install() -> None:
    """From here on a signal ends the process, with a line."""
    _before.update({number: signal.signal(number, _leave) for number in SIGNALS})


def give_back() -> None:
    """The signals as they were before, for a command that handles them itself; nothing where nothing was installed."""
    for number, handler in _before.items():
        signal.signal(number, handler)
    _before.clear()


def _leave(number: int, frame: object) -> None:
    os.write(2, b"stopped by a signal\n")
    os._exit(EXIT_CODE)

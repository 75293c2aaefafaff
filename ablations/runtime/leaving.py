"""The end of a process does not wait for ever: libraries may, in what they do when Python ends. All that counts must be on disk."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with `code` now, without what Python and libraries do at its end: that takes seconds on a busy machine."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # it may be closed, or nobody may read it any more
            stream.flush()
    os._exit(code)


def leave_within(seconds: float, code: int) -> None:
    """Have this process end with `code` after so many seconds, unless it has ended before."""

    def leave_then() -> None:
        time.sleep(seconds)
        leave(code)

    threading.Thread(target=leave_then, name="leave", daemon=True).start()

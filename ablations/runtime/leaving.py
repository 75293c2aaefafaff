"""The end of a process does not wait for ever: libraries may, in what they do when Python ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress


def leave_within(seconds: float, code: int) -> None:
    """Have this process end with `code` after so many seconds, unless it has ended before. All that counts must be on disk."""

    def leave() -> None:
        time.sleep(seconds)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # it may be closed, or nobody may read it any more
                stream.flush()
        os._exit(code)

    threading.Thread(target=leave, name="leave", daemon=True).start()

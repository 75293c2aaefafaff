"""What is printed never decides how a command ends.

Characters that the screen's encoding lacks are escaped. A reader that has seen enough (`| head`), a full disk behind `>`, a terminal that
is gone and output that was closed (`>&-`) cost what would have been printed there, and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


@contextmanager
def forgiving_streams() -> Iterator[None]:
    """Within the block sys.stdout and sys.stderr are such streams."""
    _fill_gaps()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout, sys.stderr = (_Forgiving(stream or nowhere) for stream in before)
        try:
            yield
        finally:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, _Forgiving):
                    stream.flush()
            sys.stdout, sys.stderr = before


def _fill_gaps() -> None:
    """Open nothing in place of closed standard files, before another file gets their number and what is printed into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free


class _Forgiving:
    """A text stream; all but writing is the stream's own."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):
            self._give_up()
            return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def _give_up(self) -> None:
        """Nothing more goes there: Python, too, writes what is left in its buffers when it ends, and would complain."""
        with suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)

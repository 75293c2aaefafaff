"""File locks that know their holder."""

import os
import socket
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from filelock import FileLock, Timeout

from ablations.runtime.files import cannot, write_atomically


class FolderLock:
    """A file lock on a folder that knows its holder: a killed process frees the lock, and its note of itself is then ignored."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._note = folder / ".lock-holder"

    @cached_property
    def _file(self) -> FileLock:
        """Made when it is first asked for: a sweep has ten thousand cells, and locks one of them."""
        return FileLock(self._folder / ".lock")

    def acquire(self, wait: bool) -> bool:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file.acquire(timeout=-1 if wait else 0, poll_interval=0.2)
        except Timeout:
            return False
        except OSError as error:
            raise cannot("lock", self._folder, error) from error
        try:
            write_atomically(self._note, f"pid {os.getpid()} on {socket.gethostname()}")
        except BaseException:
            self._file.release()
            raise
        return True

    def release(self) -> None:
        with suppress(OSError):
            self._note.unlink(missing_ok=True)
        self._file.release()

    def holder(self) -> str:
        try:
            return self._note.read_text()
        except OSError:  # it has taken the lock but not written its note yet
            return "pid unknown"

    def is_held(self) -> bool:
        if self._file.is_locked:
            return True
        if not self._note.exists():  # looking only, so that a folder that one may not write to can be read
            return False
        try:
            self._file.acquire(timeout=0)
        except Timeout:
            return True
        except OSError:
            return False
        self._file.release()
        return False

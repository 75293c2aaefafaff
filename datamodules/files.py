"""Files and folders that appear whole or not at all: written aside, flushed to disk, renamed.

Whoever reads a path sees what was there before or what is there now, never a part. Everything here raises OSError where the disk is
full or the folder may not be written; `explained_errors` makes one line of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How the names of unfinished files and folders begin. What a killed process left under such a name may be removed.
PARTIAL = ".partial-"
# How a write fails for want of room, of rights, or of a folder.
_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE}
_OF_WRITING |= {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG}


@contextmanager
def whole_file(path: str | os.PathLike[str], sync: bool = True, aside: Path | None = None) -> Iterator[Path]:
    """A path to write to, in the same folder and with the same ending, that becomes `path` when the block ends well.

    Creates the folder. If the block raises, what was written is removed, unless `aside` names the place for it: there it stays.
    `sync=False` leaves it to the system when the bytes reach the disk: for many files that can be made again.
    """
    path = Path(path)
    unfinished = aside or path.with_name(f"{PARTIAL}{_mark()}-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield unfinished
        if sync:
            _flush(unfinished)
        put_in_place(unfinished, path)
    finally:
        if aside is None:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write to that becomes `path` when the block ends well, in place of what was there; else nothing changes."""
    path = Path(os.path.abspath(path))
    mark = _mark()
    aside, old = path.with_name(f"{PARTIAL}{mark}-{path.name}"), path.with_name(f"{PARTIAL}old-{mark}-{path.name}")
    try:
        aside.mkdir(parents=True)
        yield aside
        mode = aside.stat().st_mode & 0o666
        for file in (file for file in aside.rglob("*") if file.is_file()):
            file.chmod(mode)  # safetensors makes files that only their owner may read
            _flush(file)
        if path.exists():
            put_in_place(path, old)
        put_in_place(aside, path)
    finally:
        if old.exists() and not path.exists():
            put_in_place(old, path)
        for leftover in (aside, old):
            shutil.rmtree(leftover, ignore_errors=True)


def put_in_place(source: Path, target: Path) -> None:
    """Give a finished file or folder its name, in one step; a file that is there already is replaced."""
    os.replace(source, target)


@contextmanager
def explained_errors(path: str | os.PathLike[str], way_out: str) -> Iterator[None]:
    """An OSError of a write in the block becomes a ValueError of one line: the file, else `path`, and a way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_WRITING:
            raise
        where = error.filename or path
        raise ValueError(f"cannot write {where}: {error.strerror} (free space or permissions, or {way_out})") from error


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Writes a file whole or not at all; text as UTF-8."""
    with whole_file(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mark() -> str:
    """What no other process and no other call puts into a name."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


def _flush(file: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())  # else a power cut may leave the new name on an empty file

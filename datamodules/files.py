"""Files and folders that appear whole or not at all: written aside, flushed to disk, renamed.

Whoever reads a path sees what was there before or what is there now, never a part. Everything here raises OSError where the disk is
full or the folder may not be written; `explained_errors` makes one line of it.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How the names of unfinished files and folders begin, before the machine and the process that write them. What a killed process left under
# such a name is removed.
PARTIAL = ".partial-"
_MACHINE = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_OF_PROCESS = re.compile(rf"{re.escape(PARTIAL)}(?:old-)?(?P<machine>[0-9a-f]{{8}})-(?P<pid>\d+)-[0-9a-f]{{8}}-(?P<name>.*)", re.DOTALL)
WANT_OF_ROOM_OR_RIGHTS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS})
# How a write fails for want of room, of rights, or of a folder.
_OF_WRITING = WANT_OF_ROOM_OR_RIGHTS | {errno.EIO, errno.ESTALE}
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
    if sync:  # of many files whoever owns their folder clears up
        clear_dead(path.parent, path.name)
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
        clear_dead(path.parent, path.name)
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


def clear_dead(folder: Path, name: str | None = None) -> None:
    """Remove what processes of this machine that are gone left half-written in the folder: of the file or folder `name`, or all."""
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name.startswith(PARTIAL)]:
            known = _OF_PROCESS.fullmatch(path.name)
            if known and known["machine"] == _MACHINE and name in (None, known["name"]) and _is_gone(int(known["pid"])):
                _remove(path)


def clear_all(folder: Path) -> None:
    """Remove everything half-written in the folder and below it, whoever left it: for the one who alone may write there."""
    for root, folders, names in os.walk(folder):
        for name in [name for name in (*folders, *names) if name.startswith(PARTIAL)]:
            _remove(Path(root, name))


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


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
    return f"{_MACHINE}-{os.getpid()}-{secrets.token_hex(4)}"


def _flush(file: Path) -> None:
    with file.open("rb+") as written:
        os.fsync(written.fileno())  # else a power cut may leave the new name on an empty file

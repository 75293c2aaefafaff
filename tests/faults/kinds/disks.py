"""A disk that is full, read-only or not ours from a random write on: one line, nothing finished is lost, and the same command goes on."""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from faults.bench import Kind, Tried, each
from faults.kinds.kills import rubbish
from faults.small_cell import copy_of_finished, forget_cells, small_cell
from helpers.small_sweeps import results_in

FAILURES = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT)


class _Disk:
    """Counts the writes below a folder, and fails from the `first` one on."""

    def __init__(self, folder: Path, first: int | None = None, number: int = errno.ENOSPC):
        self.folder, self.first, self.number, self.writes = os.path.realpath(folder), first, number, 0

    def write(self, path: object) -> None:
        if self._is_below(path):
            self.writes += 1
            if self.first is not None and self.writes > self.first:
                raise OSError(self.number, os.strerror(self.number), os.fspath(path) if isinstance(path, str | os.PathLike) else None)

    def _is_below(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}") if os.path.exists(f"/proc/self/fd/{path}") else ""
        return isinstance(path, str | os.PathLike) and os.path.realpath(path).startswith(f"{self.folder}{os.sep}")


@contextmanager
def failing(disk: _Disk) -> Iterator[None]:
    """Within the block what Python writes goes through the disk: files that are opened, written, flushed, renamed, and folders."""
    opened = io.open

    def open_(file, mode="r", *args, **options):
        if set(mode) & set("wax+"):
            disk.write(file)
        stream = opened(file, mode, *args, **options)
        if "b" in mode and set(mode) & set("wax+"):
            return _Stream(stream, disk)
        return stream

    def before(function: Callable) -> Callable:
        def checked(path, *args, **options):
            disk.write(path)
            return function(path, *args, **options)

        return checked

    with (
        mock.patch.object(io, "open", open_),
        mock.patch.object(builtins, "open", open_),
        mock.patch.object(os, "replace", before(os.replace)),
        mock.patch.object(os, "fsync", before(os.fsync)),
        mock.patch.object(os, "pwrite", before(os.pwrite)),
        mock.patch.object(os, "mkdir", before(os.mkdir)),
    ):
        yield


class _Stream:
    """A binary stream whose writes count."""

    def __init__(self, stream, disk: _Disk):
        self._stream, self._disk = stream, disk

    def write(self, content) -> int:
        self._disk.write(self._stream.fileno())
        return self._stream.write(content)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._stream.close()


def try_disks(seed: int, count: int, folder: Path) -> Tried:
    cell, begun = small_cell(), copy_of_finished(folder / "begun")
    whole = results_in(begun)
    forget_cells(begun)  # training and caches stay
    work = folder / "work"

    def anew(from_nothing: bool) -> None:
        shutil.rmtree(work, ignore_errors=True)
        if from_nothing:
            work.mkdir()
        else:
            shutil.copytree(begun, work)

    writes = {}
    for from_nothing in (True, False) if count > 3 else (False,):
        anew(from_nothing)
        with failing(disk := _Disk(work)):
            cell.run(work)
        writes[from_nothing] = disk.writes

    def attempt(rng: np.random.Generator, number: int) -> str | None:
        from_nothing = bool(rng.choice(list(writes)))
        disk = _Disk(work, int(rng.integers(writes[from_nothing])), int(rng.choice(FAILURES)))
        where = f"{errno.errorcode[disk.number]} from write {disk.first} of {writes[from_nothing]} on{', from nothing' * from_nothing}"
        anew(from_nothing)
        try:
            with failing(disk):
                ended = cell.run(work)
        except Exception as error:
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error
        if problem := ended.problem((0, 1, 2)):
            return f"{where}: {problem}"
        if problem := cell.run(work).problem():
            return f"{where}: the same command again: {problem}"
        if results_in(work) != whole:
            return f"{where}: other results"
        return f"{where}: left {rubbish(work)}" if rubbish(work) else None

    return each("disks", seed, count, attempt)


KIND = Kind("disks", try_disks, short=2, about="ENOSPC, EACCES, EROFS and EDQUOT from a random write on")

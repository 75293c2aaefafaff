"""A feature cache while it is written: files of the final size, and notes of which rows of them are done.

A note is written after the rows have reached the disk, so that a process that was killed, or a machine that lost its power, can lose rows
but never leave one that counts as done and is not. Several processes may write at a time, each other rows and a note of its own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamodules.feature_cache.ranges import Ranges, covers, length, merged
from datamodules.files import file_digest, put_in_place, write_atomically

if TYPE_CHECKING:
    from datamodules.feature_cache.cache import FeatureCache

# Of the process that holds the lock; those that write beside it have a number in the name.
_NOTE, _NOTES_BESIDE = "progress.json", "progress-*.json"


def _folder_of(cache: FeatureCache) -> Path:
    return cache.cache_dir / f".{cache.folder.name}.partial"


def _note_of(cache: FeatureCache, path: Path) -> dict:
    """What a process that writes the cache, or wrote it, noted; empty if there is nothing that fits."""
    try:
        note = json.loads(path.read_bytes())
        if note["key"] != cache.key:
            return {}
        note["done"] = merged((int(start), int(end)) for start, end in note["done"])
        return note if all(0 <= start < end <= cache.num_records for start, end in note["done"]) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def done_by_all(cache: FeatureCache) -> Ranges:
    """The rows that all notes together have."""
    folder = _folder_of(cache)
    notes = [_note_of(cache, path) for path in (folder / _NOTE, *sorted(folder.glob(_NOTES_BESIDE)))]
    return merged(part for note in notes for part in note.get("done", ()))


def who_writes(cache: FeatureCache) -> str:
    """Which process it is and how far, with a blank before it; nothing where that process has not noted anything yet."""
    note = _note_of(cache, _folder_of(cache) / _NOTE)
    return f" ({note['who']}, {length(done_by_all(cache))} of {cache.num_records} pictures)" if note else ""


class PartialCache:
    """The files of one cache that is being written.

    `done` are the records whose features are written, in every view. What earlier processes left is taken up if it is of this very cache,
    else removed; the caller holds the cache's lock. With `beside`, a number from 1, this is a process that writes beside the one that does:
    the files must be there. Raises ValueError, one line, where the disk is full.
    """

    def __init__(self, cache: FeatureCache, beside: int = 0):
        self.cache = cache
        self._folder = _folder_of(cache)
        self._note_path = self._folder / (f"progress-{beside}.json" if beside else _NOTE)
        self._beside = beside
        self.done: Ranges = [] if beside else self._taken_up()
        self._noted = length(self.done)
        self._files: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        for feature in cache.shapes:
            there = bool(beside or self.done)
            array = np.lib.format.open_memmap(self._path(feature), *(("r",) if there else ("w+", np.float32, self._shape(feature))))
            self._offsets[feature] = array.offset
            del array
            self._files[feature] = os.open(self._path(feature), os.O_WRONLY)
        self._note()

    def _taken_up(self) -> Ranges:
        """What earlier processes have done, all of it noted as this one's; an empty folder where there is nothing to take up."""
        cache = self.cache
        for left_over in cache.cache_dir.glob(f".{cache.folder.name}.*.partial"):  # as earlier versions named it
            shutil.rmtree(left_over, ignore_errors=True)
        done = done_by_all(cache)
        if not done or not self._fits():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir()
            return []
        self.done = done
        self._note()
        for path in self._folder.glob(_NOTES_BESIDE):
            path.unlink()
        return done

    def take_in(self) -> None:
        """Count what processes beside this one have noted as done."""
        self.done = done_by_all(self.cache)

    def mark(self, start: int, end: int) -> None:
        """The rows from `start` to before `end` are written, in every view."""
        self.done = merged([*self.done, (start, end)])

    def has(self, start: int, end: int) -> bool:
        """Whether all of these rows are done."""
        return covers(self.done, start, end)

    @staticmethod
    def bytes_there(cache: FeatureCache) -> int:
        """What the cache's unfinished files take on the disk already. The files have holes: their length does not tell."""
        return sum(path.stat().st_blocks * 512 for path in _folder_of(cache).glob("*.npy")) if done_by_all(cache) else 0

    def write(self, view: int, start: int, features: dict[str, np.ndarray]) -> None:
        """Features float32 (B, ...) of the records from position `start` on."""
        for feature, values in features.items():
            row_bytes = values.itemsize * int(np.prod(values.shape[1:]))
            offset = self._offsets[feature] + (view * self.cache.num_records + start) * row_bytes
            content = memoryview(np.ascontiguousarray(values)).cast("B")
            try:
                # Not through a memory map: a disk that fills up would kill the process there, here it is an error.
                while content:
                    written = os.pwrite(self._files[feature], content, offset)
                    content, offset = content[written:], offset + written
            except OSError as error:
                raise self._explained(error) from error

    def keep(self) -> None:
        """Make the rows that are done last."""
        try:
            for file in self._files.values():
                os.fsync(file)
            self._note()
        except OSError as error:
            raise self._explained(error) from error
        self._noted = length(self.done)

    def finish(self) -> None:
        """Describe the files, flush them to disk, and give the folder its name."""
        self.keep()
        self._close()
        cache = self.cache
        files = {f: {"bytes": self._path(f).stat().st_size, "sha256": file_digest(self._path(f))} for f in cache.shapes}
        meta = {
            "key": cache.key,
            "encoder": cache.name,
            "encoder_digest": cache.encoder_digest,
            "content_digest": cache.content_digest,
            "num_records": cache.num_records,
            "image_size": cache.image_size,
            "flips": cache.flips,
            "files": files,
        }
        try:
            write_atomically(self._folder / "meta.json", json.dumps(meta, indent=1).encode())
        except OSError as error:
            raise self._explained(error) from error
        if cache.folder.exists():
            shutil.rmtree(cache.folder)
        put_in_place(self._folder, cache.folder)
        for path in cache.folder.glob(_NOTES_BESIDE):
            path.unlink()
        (cache.folder / _NOTE).unlink()  # last: a process that is killed before finds every row done
        cache._arrays = {}

    def abandon(self) -> None:
        """Close the files; what lasts stays for the next process, and a folder where nothing lasts goes."""
        self._close()
        if not self._beside and not done_by_all(self.cache):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _close(self) -> None:
        for file in self._files.values():
            with suppress(OSError):
                os.close(file)
        self._files = {}

    def _path(self, feature: str) -> Path:
        return self._folder / f"{feature}.npy"

    def _shape(self, feature: str) -> tuple[int, ...]:
        return (self.cache.num_views, self.cache.num_records, *self.cache.shapes[feature])

    def _fits(self) -> bool:
        """Whether the files are those of this cache, at their full length."""
        try:
            arrays = {feature: np.load(self._path(feature), mmap_mode="r") for feature in self.cache.shapes}
        except (OSError, ValueError):
            return False
        return all(array.dtype == np.float32 and array.shape == self._shape(feature) for feature, array in arrays.items())

    def _note(self) -> None:
        note = {"key": self.cache.key, "done": self.done, "who": f"pid {os.getpid()} on {socket.gethostname()}"}
        write_atomically(self._note_path, json.dumps(note).encode())

    def _explained(self, error: OSError) -> Exception:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        kept = f" ({self._noted} are kept)" if self._noted else ""
        return ValueError(
            f"the feature cache has filled the disk of {self.cache.cache_dir} after {length(self.done)} of {self.cache.num_records} "
            f"pictures{kept}: free some space and run again, or set data.cache_dir to a larger disk"
        )

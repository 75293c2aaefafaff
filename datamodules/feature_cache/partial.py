"""A feature cache while it is written: files of the final size, and notes of which rows of them are done.

Beside each row its digest is written, by which rows are compared before they are gone on from, and later when they are read. A complete
cache in which damage is found becomes an unfinished one again that lacks the damaged rows.

A note is written after the rows have reached the disk, so that a process that was killed, or a machine that lost its power, can lose rows
but never leave one that counts as done and is not. Several processes may write at a time, each other rows and a note of its own.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from datamodules.feature_cache.cache import SUSPECT
from datamodules.feature_cache.ranges import Ranges, covers, length, merged
from datamodules.feature_cache.row_digests import DAMAGE, ROWS, different, digests_of, rows_name
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
        note["batch"] = int(note.get("batch", 0))
        return note if all(0 <= start < end <= cache.num_records for start, end in note["done"]) else {}
    except DAMAGE:
        return {}


def _notes(cache: FeatureCache) -> list[dict]:
    folder = _folder_of(cache)
    return [_note_of(cache, path) for path in (folder / _NOTE, *sorted(folder.glob(_NOTES_BESIDE)))]


def done_by_all(cache: FeatureCache) -> Ranges:
    """The rows that all notes together have."""
    return merged(part for note in _notes(cache) for part in note.get("done", ()))


def who_writes(cache: FeatureCache) -> str:
    """Which process it is and how far, with a blank before it; nothing where that process has not noted anything yet."""
    note = _note_of(cache, _folder_of(cache) / _NOTE)
    return f" ({note['who']}, {length(done_by_all(cache))} of {cache.num_records} pictures)" if note else ""


def take_back(cache: FeatureCache) -> int:
    """Make an unfinished cache of a complete one that is damaged, with the rows that are whole; returns how many are not.

    The caller holds the cache's lock. Whole batches are left out, so that the rows that are made again are what they were.
    """
    lost = cache.num_records
    try:
        meta = json.loads((cache.folder / "meta.json").read_bytes())
        bad, batch = np.flatnonzero(~cache.whole_rows()), int(meta["batch"])
        if meta["key"] == cache.key and batch > 0 and len(bad) < cache.num_records:
            lost = len(bad)
            shutil.rmtree(_folder_of(cache), ignore_errors=True)
            put_in_place(cache.folder, _folder_of(cache))
            _write_note(_folder_of(cache) / _NOTE, cache, _without([(0, cache.num_records)], bad, batch), batch)
    except DAMAGE:
        lost = cache.num_records
    cache.forget()
    shutil.rmtree(cache.folder, ignore_errors=True)
    return lost


def _layout(cache: FeatureCache) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """The arrays of a cache by their files' names: each feature, and the digests of its rows."""
    rows = (cache.num_views, cache.num_records)
    features = {f"{feature}.npy": (np.dtype(np.float32), (*rows, *shape)) for feature, shape in cache.shapes.items()}
    return features | {rows_name(feature): (ROWS, rows) for feature in cache.shapes}


def _whole_part(cache: FeatureCache, done: Ranges, batch: int) -> Ranges:
    """Those of the ranges in which every row is what was written; none where the files are not those of this cache, at full length."""
    try:
        arrays = {name: np.load(_folder_of(cache) / name, mmap_mode="r") for name in _layout(cache)} if done and batch else {}
    except DAMAGE:
        return []
    if not arrays or any((arrays[name].dtype, arrays[name].shape) != wanted for name, wanted in _layout(cache).items()):
        return []

    bad = [
        start + place
        for start, end in done
        for feature in cache.shapes
        for view in range(cache.num_views)
        for place in different(arrays[f"{feature}.npy"][view, start:end], arrays[rows_name(feature)][view, start:end])
    ]
    return _without(done, bad, batch)


def _without(done: Ranges, bad: Iterable[int], batch: int) -> Ranges:
    """The ranges without the batches of the bad rows: encoded in the same batches, rows come out as they were."""
    lost = merged((place // batch * batch, place // batch * batch + batch) for place in map(int, bad)) if batch else []
    kept = list(done)
    for first, last in lost:
        kept = [part for start, end in kept for part in ((start, min(end, first)), (max(start, last), end))]
    return merged(kept)


def _write_note(path: Path, cache: FeatureCache, done: Ranges, batch: int) -> None:
    note = {"key": cache.key, "done": done, "batch": batch, "who": f"pid {os.getpid()} on {socket.gethostname()}"}
    write_atomically(path, json.dumps(note).encode())


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
        self._batch = 0
        self.done: Ranges = [] if beside else self._taken_up()
        self._noted = length(self.done)
        self._files: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        there = bool(beside or self.done)
        for name, (dtype, shape) in _layout(cache).items():
            array = np.lib.format.open_memmap(self._folder / name, *(("r",) if there else ("w+", dtype, shape)))
            self._offsets[name] = array.offset
            del array
            self._files[name] = os.open(self._folder / name, os.O_WRONLY)
        self._note()

    def _taken_up(self) -> Ranges:
        """What earlier processes have done, all of it noted as this one's; an empty folder where there is nothing to take up."""
        cache = self.cache
        for left_over in cache.cache_dir.glob(f".{cache.folder.name}.*.partial"):  # as earlier versions named it
            shutil.rmtree(left_over, ignore_errors=True)
        self._batch = max(note.get("batch", 0) for note in _notes(cache))
        done = _whole_part(cache, done_by_all(cache), self._batch)
        if not done:
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
        self._batch = max(self._batch, *(len(values) for values in features.values()))
        for feature, values in features.items():
            for name, rows in ((f"{feature}.npy", values), (rows_name(feature), digests_of(values))):
                row_bytes = rows.itemsize * int(np.prod(rows.shape[1:]))
                offset = self._offsets[name] + (view * self.cache.num_records + start) * row_bytes
                content = memoryview(np.ascontiguousarray(rows)).cast("B")
                try:
                    # Not through a memory map: a disk that fills up would kill the process there, here it is an error.
                    while content:
                        written = os.pwrite(self._files[name], content, offset)
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

        def described(name: str) -> dict:
            return {"bytes": (self._folder / name).stat().st_size, "sha256": file_digest(self._folder / name)}

        meta = {
            "key": cache.key,
            "encoder": cache.name,
            "encoder_digest": cache.encoder_digest,
            "content_digest": cache.content_digest,
            "num_records": cache.num_records,
            "image_size": cache.image_size,
            "flips": cache.flips,
            "batch": self._batch,
            "files": {feature: described(f"{feature}.npy") for feature in cache.shapes},
            "rows": {feature: described(rows_name(feature)) for feature in cache.shapes},
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
        (cache.folder / SUSPECT).unlink(missing_ok=True)
        (cache.folder / _NOTE).unlink()  # last: a process that is killed before finds every row done
        cache.forget()

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

    def _note(self) -> None:
        _write_note(self._note_path, self.cache, self.done, self._batch)

    def _explained(self, error: OSError) -> Exception:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return error
        kept = f" ({self._noted} are kept)" if self._noted else ""
        return ValueError(
            f"the feature cache has filled the disk of {self.cache.cache_dir} after {length(self.done)} of {self.cache.num_records} "
            f"pictures{kept}: free some space and run again, or set data.cache_dir to a larger disk"
        )

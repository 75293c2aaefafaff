"""Pictures that lie inside a parquet file or a saved `datasets` folder: known by their place, read when they are asked for.

A saved folder is memory-mapped, and quick in any order. A parquet file is compressed in runs of rows, so it is quick in order,
which is how the feature cache and the check of the pictures read it, and slow in random order.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol

NO_IMAGE = "the cell holds no image"
_ROWS_AT_ONCE = 64


class NoImageError(FileNotFoundError):
    """A cell names no picture, or one that is not there. Its message begins with NO_IMAGE."""


class PictureFile(Protocol):
    """What a record's picture must offer; `pathlib.Path` does."""

    @property
    def name(self) -> str: ...

    def stat(self) -> os.stat_result: ...

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class StoredImage:
    """The picture in a cell: `row` of `column` in `container`, a parquet file or the folder of a saved data set.

    A cell may hold bytes, a path, or both as `datasets.Image` stores them: `{"bytes": ..., "path": ...}`. Relative paths start at one
    of `roots`.
    """

    container: Path
    column: str
    row: int
    roots: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.container}[{self.row}]"

    @property
    def name(self) -> str:
        return f"{self.container.name}[{self.row}]"

    def stat(self) -> os.stat_result:
        """Size and time of what the picture lies in."""
        return (self.container if self.container.is_file() else self.container / "state.json").stat()

    def read_bytes(self) -> bytes:
        """The picture as a file's content. Raises NoImageError for a cell without one, ValueError or OSError for damage."""
        cell = _column(os.getpid(), self.container, self.column).cell(self.row)
        content, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, cell)
        if isinstance(content, bytes):
            return content
        if not isinstance(path, str) or not path.strip():
            raise NoImageError(NO_IMAGE)
        found = next((root / path for root in self.roots if (root / path).is_file()), None)
        if found is None:
            raise NoImageError(f"{NO_IMAGE}: the file {path!r} that it names is not there")
        return found.read_bytes()


@lru_cache(maxsize=64)
def _column(process: int, container: Path, column: str) -> _ParquetColumn | _SavedColumn:
    """An open column. `process` is part of the key: a forked worker must not share a reader's place with its parent."""
    return _ParquetColumn(container, column) if container.is_file() else _SavedColumn(container, column)


class _SavedColumn:
    """A column of a saved data set, memory-mapped."""

    def __init__(self, folder: Path, column: str):
        self._cells = open_saved(folder).data.table.column(column)

    def cell(self, row: int) -> Any:
        return self._cells[row].as_py()


class _ParquetColumn:
    """A column of a parquet file, read forward in small runs, two of which are kept: memory does not grow with the row group's size."""

    def __init__(self, path: Path, column: str):
        import pyarrow.parquet as pq

        # No threads and no read-ahead: pyarrow's own do not survive the fork that makes a data loader's workers.
        self._file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        self._name = column
        sizes = [self._file.metadata.row_group(group).num_rows for group in range(self._file.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._lock = threading.Lock()
        self._runs: deque[tuple[int, Any]] = deque(maxlen=2)
        self._group = -1
        self._ahead: Iterator[tuple[int, Any]] = iter(())

    def cell(self, row: int) -> Any:
        with self._lock:
            for start, run in self._runs:
                if start <= row < start + len(run):
                    return run[row - start].as_py()
            group = bisect_right(self._starts, row) - 1
            if group != self._group or not self._runs or row < self._runs[-1][0]:
                self._group, self._ahead = group, self._read(group)
            for start, run in self._ahead:
                self._runs.append((start, run))
                if start <= row < start + len(run):
                    return run[row - start].as_py()
            raise IndexError(f"no row {row} in a parquet file of {self._starts[-1]}")

    def _read(self, group: int) -> Iterator[tuple[int, Any]]:
        start = self._starts[group]
        for batch in self._file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[self._name], use_threads=False):
            column = batch.column(0)
            yield start, column
            start += len(column)


def open_saved(folder: Path) -> Any:
    """The `datasets.Dataset` that `save_to_disk` wrote into `folder`, memory-mapped."""
    from datasets import load_from_disk

    return load_from_disk(str(folder), keep_in_memory=False)

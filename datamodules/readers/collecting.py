"""What readers share: which columns hold what, the files of a folder, and records numbered over all files of a source.

Columns: the fine prompt is in `fine-grained prompt`, `fine`, `prompt`, `text` or `caption`, the first that is there; the coarse one in
`coarse-grained prompt` (a list of three) or `coarse`, else it is cut from the fine one. Splits that a source brings (files, folders,
a dictionary) are read one after the other: what is held out is decided as for tables, by a hash of the text, so that equal prompts never
fall on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.record_parser import COARSE_LIST_COLUMN, Columns, ImageFinder, ReadTable, RecordParser
from datamodules.readers.register import Source
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import StoredImage

FINE_COLUMNS = ("fine-grained prompt", "fine", "prompt", "text", "caption")
COARSE_COLUMNS = (COARSE_LIST_COLUMN, "coarse")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

FindImage = Callable[[Any], "Path | StoredImage | None"]


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders, in order, without hidden ones."""
    return sorted(file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def first_of(names: tuple[str, ...], there: list[str]) -> str | None:
    """The first of some names that is there."""
    return next((name for name in names if name in there), None)


def choose_columns(where: Path, there: list[str], image: str | None) -> Columns:
    """The columns to read. Raises ValueError if none holds the fine prompt."""
    fine = first_of(FINE_COLUMNS, there)
    if fine is None:
        found = ", ".join(repr(name[:40]) for name in there[:20]) or "none"
        raise ValueError(f"{where}: no column holds the fine prompt; columns found: {found}; expected one of {', '.join(FINE_COLUMNS)}")
    return Columns(fine, first_of(COARSE_COLUMNS, there), image)


class Collector:
    """Records and bad records of one source, numbered from 0 over all its files; `total` counts both."""

    def __init__(self, source: Source):
        self._source, self._cutter = source, CoarsePromptCutter(source.count_tokens)
        self._records: list[CFPRecord] = []
        self._bad: list[BadRecord] = []
        self.total = 0

    def finder(self, file: Path) -> ImageFinder:
        """Where the pictures are that `file` names. Raises FileNotFoundError if the source's `images` is no folder."""
        return ImageFinder(file, self._source.images)

    def parser(self, columns: Columns, find: FindImage) -> RecordParser:
        """What makes records of rows; `find` says what picture an image cell names."""
        return RecordParser(columns, find, self._cutter, self._source.clean)

    def add(self, parsed: CFPRecord | BadRecord) -> None:
        """Take in a row's record, or what is wrong with the row."""
        (self._bad if isinstance(parsed, BadRecord) else self._records).append(parsed)
        self.total += 1

    def table(self, kind: str, columns: Columns) -> ReadTable:
        """All that was collected. `kind` names the layout, as in "parquet". Raises ValueError where there is no row."""
        if not self.total:
            raise ValueError(f"data.source: the {kind} has no rows")
        layout = f"{kind}: {', '.join(repr(column) for column in columns if column)}"
        return ReadTable(layout, self._records, self._bad, self.total, any(record.image is not None for record in self._records))

"""What readers share: which columns hold what, the files of a folder, and records numbered over all files of a source.

Columns: the fine prompt is in `fine-grained prompt`, `fine`, `prompt`, `text` or `caption`, the first that is there; the coarse one in
`coarse-grained prompt` (a list of three) or `coarse`, else it is cut from the fine one. The splits of a source (files, folders, a
dictionary) are read one after the other; which one a record is of stands in its metadata, as a column `split` of a table does.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.image_finder import ImageFinder
from datamodules.readers.record_parser import COARSE_LIST_COLUMN, Columns, ReadTable, RecordParser
from datamodules.readers.register import Source
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import StoredImage

FINE_COLUMNS = ("fine-grained prompt", "fine", "prompt", "text", "caption")
COARSE_COLUMNS = (COARSE_LIST_COLUMN, "coarse")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

FindImage = Callable[[Any], "Path | StoredImage | None"]
# As in data/train-00000-of-00004.parquet, train/metadata.csv and test/0001.png.
_SPLIT_NAME = re.compile(r"(?i)^(train(ing)?|test(ing)?|val(id(ation)?)?|dev|eval)(?=$|[-_.]\d|\.[a-z]+$)")


def split_named_by(file: Path, root: Path) -> str:
    """The split that a file of a folder is of, by the names of its folders below `root` or its own; "" where none says so."""
    if not file.is_relative_to(root):
        return ""
    parts = file.relative_to(root).parts
    return next((found.group(1).lower() for part in parts if (found := _SPLIT_NAME.match(part))), "")


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and its sub-folders, in order, without hidden ones. Linked folders are followed, and each is read once."""
    links: list[Path] = []
    seen: set[str] = set()
    files = _files_below(folder, links, seen)
    root = os.path.realpath(folder)
    while links:
        link = links.pop(0)
        target = os.path.realpath(link)
        if target not in seen and not Path(root).is_relative_to(target):  # a folder above the root would bring what is beside it
            files += _files_below(link, links, seen)
    return sorted(file for file in files if not _is_hidden(file.relative_to(folder)))


def _files_below(folder: Path, links: list[Path], seen: set[str]) -> list[Path]:
    """The files below a folder, in folders whose real paths are not in `seen`; linked folders are only noted, in `links`."""
    files = []
    for current, folders, names in os.walk(folder):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        links += [path for name in sorted(folders) if os.path.islink(path := Path(current, name))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [path for name in names if os.path.isfile(path := Path(current, name))]
    return files


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
        self._finders: list[tuple[int, ImageFinder]] = []
        self._missing: dict[int, str] = {}
        self._done: Counter[str] = Counter()
        self._split = ""
        self.total = 0

    def finder(self, file: Path, *further: Path) -> ImageFinder:
        """Where the pictures are that `file` names, whose rows are added next; `further` folders are looked in last.

        Raises FileNotFoundError if the source's `images` is no folder.
        """
        finder = ImageFinder(file, self._source.images, further)
        self._split = split_named_by(file, self._source.path) if self._source.path.is_dir() else ""
        self._finders.append((len(self._records), finder))
        return finder

    def parser(self, columns: Columns, find: FindImage, split: str | None = None) -> RecordParser:
        """What makes records of rows; `find` says what picture an image cell names, `split` of which split they are (None: that of the
        file whose finder was asked for last)."""
        return RecordParser(columns, find, self._cutter, self._source.clean, self._missing, self._split if split is None else split)

    def add(self, parsed: CFPRecord | BadRecord) -> None:
        """Take in a row's record, or what is wrong with the row."""
        (self._bad if isinstance(parsed, BadRecord) else self._records).append(parsed)
        self.total += 1

    def count(self, kind: str) -> None:
        """Note that something was done to a record, for the manifest."""
        self._done[kind] += 1

    def table(self, kind: str, columns: Columns) -> ReadTable:
        """All that was collected. `kind` names the layout, as in "parquet". Raises ValueError where there is no row."""
        if not self.total:
            raise ValueError(f"data.source: the {kind} has no rows")
        return self.read(f"{kind}: {', '.join(repr(column) for column in columns if column)}")

    def read(self, layout: str) -> ReadTable:
        """All that was collected, under the layout's whole name, less those whose pictures turned out to be doubtful."""
        self._leave_out_doubtful()
        looked = tuple(dict.fromkeys(root for _, finder in self._finders for root in finder.roots))
        any_image = any(record.image is not None for record in self._records)
        return ReadTable(layout, self._records, self._bad, self.total, any_image, dict(self._done), self._missing, looked)

    def _leave_out_doubtful(self) -> None:
        kept: list[CFPRecord] = []
        starts = [start for start, _ in self._finders]
        for number, record in enumerate(self._records):
            place = bisect_right(starts, number) - 1
            doubt = self._finders[place][1].doubt(record.image, list(record.metadata.values())) if place >= 0 else ""
            if doubt:
                self._bad.append(BadRecord(record.id, 0, "missing_image" if doubt.startswith("no image") else "ambiguous_image", doubt))
            else:
                kept.append(record)
        self._records = kept
        self._bad.sort(key=lambda bad: bad.id)

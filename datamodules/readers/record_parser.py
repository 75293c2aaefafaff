"""Rows to records: columns, coarse prompts in a cell, pictures by name."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.image_finder import NO_IMAGE_NAMED, AmbiguousImageError, why_missing
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import StoredImage

COARSE_LIST_COLUMN = "coarse-grained prompt"
# What says, where there is such a column, which rows are trained on.
SPLIT_COLUMN = "split"


class Columns(NamedTuple):
    """Which columns of a source hold what. Without a coarse column coarse prompts are cut from the fine ones."""

    fine: str
    coarse: str | None
    image: str | None


_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class ReadTable:
    """A table as read: its layout's name, the records in file order, the rows left out, and the number of rows.

    `done` counts, by kind, what was done to records that are kept; `missing` says of records without a picture, by id, why;
    `looked` are the folders in which pictures were looked for.
    """

    layout: str
    records: list[CFPRecord]
    bad: list[BadRecord]
    total: int
    any_image: bool
    done: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[int, str] = field(default_factory=dict)
    looked: tuple[Path, ...] = ()

    def why_no_image(self, source: Path) -> str:
        """What to do where the table of `source` has no picture and a run needs them, in one line."""
        without = "or train without the terms that need them (use_mse=false use_clip=false)"
        named = [why for why in self.missing.values() if why != NO_IMAGE_NAMED]
        if not named:
            return f"{source} names no images ({self.layout}): add a column of them, {without}"
        shown = [str(folder) for folder in self.looked[:3]] + ([f"{len(self.looked) - 3} more"] if len(self.looked) > 3 else [])
        looked, first = ", ".join(shown), named[0]
        return f"none of the images of {source} is there (looked in {looked}; {first}): set data.images to their folder, {without}"

    def with_test(self, test: ReadTable, where: Path) -> ReadTable:
        """This table to be trained on and another one to be held out, as one table whose column `split` says which; the other's rows are
        numbered after this one's."""
        first = self.total

        def told(record: CFPRecord, kind: str, start: int) -> CFPRecord:
            metadata = {name: value for name, value in record.metadata.items() if name.strip().lower() != SPLIT_COLUMN}
            return replace(record, id=record.id + start, metadata={SPLIT_COLUMN: kind, **metadata})

        return ReadTable(
            layout=f"{self.layout}; test: {test.layout} of {where.name}",
            records=[*(told(record, "train", 0) for record in self.records), *(told(record, "test", first) for record in test.records)],
            bad=[*self.bad, *(replace(entry, id=entry.id + first) for entry in test.bad)],
            total=first + test.total,
            any_image=self.any_image or test.any_image,
            done=dict(Counter(self.done) + Counter(test.done)),
            missing={**self.missing, **{number + first: why for number, why in test.missing.items()}},
            looked=tuple(dict.fromkeys((*self.looked, *test.looked))),
        )


def parse_coarse_list(cell: str) -> tuple[str, ...]:
    """The three prompts of a `coarse-grained prompt` cell, written as JSON or as a Python literal. Raises ValueError."""
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(cell)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise ValueError(f"neither JSON nor a Python literal: {cell[:60]!r}") from None
    return _coarse_list(value, cell)


def _coarse_list(value: Any, cell: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) and isinstance(item.get("prompt"), str) for item in value):
        raise ValueError(f'not a list of {{"prompt": ...}}: {cell[:60]!r}')
    if len(value) != 3:
        raise ValueError(f"{len(value)} coarse prompts, not 3")
    return tuple(item["prompt"] for item in value)


class RecordParser:
    """Makes a record of a row's cells, wherever they were read. `find_image` says what picture an image cell names, or raises
    AmbiguousImageError; `missing` is told, by the row's number, why a record has no picture. `split` is that of all rows, where there is no
    column of it."""

    def __init__(
        self,
        columns: Columns,
        find_image: Callable[[Any], Path | StoredImage | None],
        cutter: CoarsePromptCutter,
        clean: Callable[[str], str] | None,
        missing: dict[int, str] | None = None,
        split: str = "",
    ):
        self._split = {SPLIT_COLUMN: split} if split else {}
        self._columns, self._find_image, self._cutter = columns, find_image, cutter
        self._clean = clean or (lambda text: text)
        self._missing = missing if missing is not None else {}

    def parse(self, row_id: int, line: int, cells: dict[str, Any]) -> CFPRecord | BadRecord:
        """The record, or what is wrong with the row."""

        def bad(reason: str, detail: str) -> BadRecord:
            return BadRecord(row_id, line, reason, detail)

        for column, cell in cells.items():
            if isinstance(cell, str) and (_SURROGATE.search(cell) or "\0" in cell):
                return bad("encoding", f"the column {column!r} holds bytes that are not UTF-8 text")
        fine_column, coarse_column, image_column = self._columns
        fine = cells[fine_column]
        if not isinstance(fine, str | None):
            return bad("not_text", f"the column {fine_column!r} holds {fine!r:.60}")
        fine = self._clean(fine or "")
        if not fine.strip():
            return bad("empty_prompt", f"the column {fine_column!r} holds no words")
        try:
            coarse = tuple(map(self._clean, _coarse_texts(cells[coarse_column], coarse_column))) if coarse_column else self._cutter(fine)
        except ValueError as error:
            return bad("coarse_list", str(error))
        if not all(text.strip() for text in coarse):
            return bad("empty_prompt", f"the column {coarse_column!r} holds no words")
        others = (item for item in cells.items() if item[0] not in (fine_column, coarse_column))
        metadata = self._split | {column: "" if cell is None else str(cell) for column, cell in others}
        try:
            image = self._find_image(cells[image_column]) if image_column else None
        except AmbiguousImageError as error:
            return bad("ambiguous_image", str(error))
        if image is None and image_column:
            self._missing[row_id] = why_missing(cells[image_column])
        return CFPRecord(row_id, fine, coarse, image, None, metadata)


def _coarse_texts(cell: Any, column: str) -> tuple[str, ...]:
    """The coarse prompts of a cell: one text, a list of three in some notation, or a list as parquet keeps it. Raises ValueError."""
    if isinstance(cell, list):
        return _coarse_list([{"prompt": item} if isinstance(item, str) else item for item in cell], repr(cell))
    if column == COARSE_LIST_COLUMN:
        return parse_coarse_list(cell if isinstance(cell, str) else "")
    if not isinstance(cell, str | None):
        raise ValueError(f"not a text: {cell!r:.60}")
    return (cell or "",)

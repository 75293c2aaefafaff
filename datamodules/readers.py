"""Readers for every layout in which coarse-fine prompt data is found.

Tables are CSV files, their layout told by the header:

1. the authors' image table: `prompt,step,seed,height,width,cfg,sampler,image_name,image_path`; coarse prompts are cut from
   the fine ones;
2. that table with `coarse-grained prompt` (a list of three `{"prompt": ...}`) and `fine-grained prompt`;
3. plain `coarse,fine,image`.

Other columns are kept as metadata. A damaged row costs itself and nothing after it. Folders, and parquet files, are read by
`datamodules.readers_folders`, with the same records and the same reasons.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.coarse_prompts import CoarsePromptCutter
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import StoredImage
from datamodules.tiny_world import grammar

COARSE_LIST_COLUMN = "coarse-grained prompt"


class Columns(NamedTuple):
    """Which columns of a source hold what. Without a coarse column coarse prompts are cut from the fine ones."""

    fine: str
    coarse: str | None
    image: str | None


# The layouts of a table; the first whose columns are all there is taken.
LAYOUTS = {
    "coarse-fine table": Columns("fine-grained prompt", COARSE_LIST_COLUMN, "image_path"),
    "image table": Columns("prompt", None, "image_path"),
    "plain table": Columns("fine", "coarse", "image"),
}
_LAYOUT_HELP = (
    "the authors' image table (prompt, ..., image_path), "
    "that table with 'coarse-grained prompt' and 'fine-grained prompt', or plain coarse,fine,image"
)
_MAX_FIELD_CHARS = 10_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")
# The grammar has about 100,000 likely prompts; drawing distinct ones takes ever longer near a split's end.
TINY_WORLD_LIMITS = {"train": 40_000, "validation": 4_000, "test": 8_000}
TINY_WORLD_DATA_SEED = 0
# Ids of the tiny world's splits do not overlap: training rows from 0, then validation, then test.
TINY_WORLD_ID_OFFSETS = {"train": 0, "validation": 100_000, "test": 200_000}


@dataclass(frozen=True)
class ReadTable:
    """A table as read: its layout's name, the records in file order, the rows left out, and the number of rows."""

    layout: str
    records: list[CFPRecord]
    bad: list[BadRecord]
    total: int
    any_image: bool


@dataclass(frozen=True)
class CSVRow:
    """A row of a CSV file: its number, its line, and its fields or what is wrong with it."""

    id: int
    line: int
    fields: list[str]
    problem: str = ""


def csv_rows(lines: list[str], first: int) -> Iterator[CSVRow]:
    """The data rows from line index `first` on. After a quoting error reading goes on at the line after the row's first."""
    start, row_id = first, 0
    while start < len(lines):
        position = start

        def feed() -> Iterator[str]:
            nonlocal position
            while position < len(lines):
                position += 1
                yield lines[position - 1]

        try:
            for fields in csv.reader(feed(), strict=True):
                if fields:
                    yield CSVRow(row_id, start + 1, fields)
                    row_id += 1
                start = position
            return
        except csv.Error as error:
            yield CSVRow(row_id, start + 1, [], str(error))
            row_id += 1
            start += 1


def read_csv_header(lines: list[str]) -> list[str]:
    """The column names of a CSV file's first line."""
    csv.field_size_limit(_MAX_FIELD_CHARS)
    return [column.strip() for column in next(csv.reader(lines[:1]), [])]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Bytes that are not UTF-8 stay recognisable, as lone surrogates."""
    # surrogateescape keeps undecodable bytes recognisable, so that they spoil their own row only.
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        return file.readlines()


def _detect_layout(path: Path, header: list[str]) -> str:
    for layout, columns in LAYOUTS.items():
        if all(column in header for column in columns if column):
            repeated = [column for column in columns if column and header.count(column) > 1]
            if repeated:
                raise ValueError(f"{path}: the column {repeated[0]!r} is there {header.count(repeated[0])} times")
            return layout
    found = ", ".join(repr(column[:40]) for column in header[:20]) or "none (the file is empty)"
    raise ValueError(f"{path}: unknown table layout; columns found: {found}; expected {_LAYOUT_HELP}")


class ImageFinder:
    """Where the picture named by a table's cell is: under `images` if given, else beside the table or in `images/` there.

    Raises FileNotFoundError if `images` is no folder.
    """

    def __init__(self, table: Path, images: Path | None):
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"data.images={images} is not a folder")
        self.roots = [images] if images is not None else [table.parent, table.parent / "images"]
        self._by_name = images is not None

    def find(self, cell: Any) -> Path | None:
        if not isinstance(cell, str) or not cell.strip():
            return None
        candidates = [root / cell for root in self.roots]
        if self._by_name:  # the folder given may be the one that the cell names, `eval` for `eval/1.png`
            candidates.append(self.roots[0] / Path(cell).name)
        return next((path for path in candidates if path.is_file()), None)


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


def read_table(path: Path, images: Path | None, count_tokens: Callable[[str], int], clean: Callable[[str], str] | None = None) -> ReadTable:
    """Read a CFP table of any layout. Prompts are kept verbatim unless `clean` is given.

    `images` is the folder of the pictures (default: the table's own, or `images` in it). A picture that is not found leaves
    `image` None: whether that is an error depends on the run. Raises FileNotFoundError for a missing table or folder,
    ValueError for an unknown header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"data.source={path} is not a file; name a CSV table, or use tiny")
    lines = read_lines(path)
    header = read_csv_header(lines)
    layout = _detect_layout(path, header)
    finder = ImageFinder(path, Path(images) if images is not None else None)
    parser = RecordParser(LAYOUTS[layout], finder.find, CoarsePromptCutter(count_tokens), clean)
    records, bad, total = [], [], 0
    for row in csv_rows(lines, 1):
        total += 1
        parsed = parse_csv_row(row, header, parser)
        (bad if isinstance(parsed, BadRecord) else records).append(parsed)
    return ReadTable(layout, records, bad, total, any(record.image is not None for record in records))


def parse_csv_row(row: CSVRow, header: list[str], parser: RecordParser, first_id: int = 0) -> CFPRecord | BadRecord:
    """The record of a row, or what is wrong with it; rows are numbered from `first_id`."""
    row_id = first_id + row.id
    if row.problem:
        return BadRecord(row_id, row.line, "quoting", f"line {row.line}: {row.problem}")
    if len(row.fields) != len(header):
        reason = "short_row" if len(row.fields) < len(header) else "long_row"
        return BadRecord(row_id, row.line, reason, f"{len(row.fields)} fields, not {len(header)}")
    return parser.parse(row_id, row.line, dict(zip(header, row.fields, strict=True)))


class RecordParser:
    """Makes a record of a row's cells, wherever they were read. `find_image` says what picture an image cell names."""

    def __init__(
        self,
        columns: Columns,
        find_image: Callable[[Any], Path | StoredImage | None],
        cutter: CoarsePromptCutter,
        clean: Callable[[str], str] | None,
    ):
        self._columns, self._find_image, self._cutter = columns, find_image, cutter
        self._clean = clean or (lambda text: text)

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
        metadata = {column: "" if cell is None else str(cell) for column, cell in others}
        image = self._find_image(cells[image_column]) if image_column else None
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


def read_tiny_world(
    split: str, count: int, count_tokens: Callable[[str], int], clean: Callable[[str], str] | None = None
) -> list[CFPRecord]:
    """The first `count` records of a split of the tiny world: the same in every run, whatever its seed.

    Raises ValueError for a count that the split cannot give.
    """
    limit = TINY_WORLD_LIMITS[split]
    if not 0 <= count <= limit:
        raise ValueError(f"the tiny world's {split} split gives 0 to {limit} records, not {count}")
    clean = clean or (lambda text: text)
    return [
        CFPRecord(
            TINY_WORLD_ID_OFFSETS[split] + number,
            clean(caption.text),
            tuple(clean(text) for text in grammar.coarse_prompts(caption.text, count_tokens)),
            scene=caption.description,
        )
        for number, caption in enumerate(grammar.draw_split(split, count, TINY_WORLD_DATA_SEED))
    ]

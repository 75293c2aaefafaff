"""CSV tables, in every layout in which coarse-fine prompt data is found, told by the header:

1. the authors' image table: `prompt,step,seed,height,width,cfg,sampler,image_name,image_path`; coarse prompts are cut from
   the fine ones;
2. that table with `coarse-grained prompt` (a list of three `{"prompt": ...}`) and `fine-grained prompt`;
3. plain `coarse,fine,image`.

Other columns are kept as metadata. A damaged row costs itself and nothing after it. The readers of other sources give the same records
and the same reasons.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.record_parser import COARSE_LIST_COLUMN, Columns, ImageFinder, ReadTable, RecordParser
from datamodules.readers.register import Reader, Source, register
from datamodules.records import BadRecord, CFPRecord

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


def _read(source: Source) -> ReadTable:
    return read_table(source.path, source.images, source.count_tokens, source.clean)


register(Reader("table", lambda path: path.is_file() and path.suffix.lower() != ".parquet", _read, file="CSV", order=100))

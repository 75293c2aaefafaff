"""Readers for every layout in which coarse-fine prompt data is found.

Tables are CSV files, their layout told by the header:

1. the authors' image table: `prompt,step,seed,height,width,cfg,sampler,image_name,image_path`; coarse prompts are cut from
   the fine ones;
2. that table with `coarse-grained prompt` (a list of three `{"prompt": ...}`) and `fine-grained prompt`;
3. plain `coarse,fine,image`.

Other columns are kept as metadata. A damaged row costs itself and nothing after it.
"""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datamodules.coarse_prompts import CoarsePromptCutter
from datamodules.records import BadRecord, CFPRecord
from datamodules.tiny_world import grammar

# layout -> (fine column, coarse column, image column, columns that must be there); the first that fits is taken
LAYOUTS = {
    "coarse-fine table": ("fine-grained prompt", "coarse-grained prompt", "image_path"),
    "image table": ("prompt", None, "image_path"),
    "plain table": ("fine", "coarse", "image"),
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
class _Row:
    id: int
    line: int
    fields: list[str]
    problem: str = ""


def _rows(lines: list[str], first: int) -> Iterator[_Row]:
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
                    yield _Row(row_id, start + 1, fields)
                    row_id += 1
                start = position
            return
        except csv.Error as error:
            yield _Row(row_id, start + 1, [], str(error))
            row_id += 1
            start += 1


def _read_lines(path: Path) -> list[str]:
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


class _ImageFinder:
    """Where the picture named by a table's cell is: under `images` if given, else beside the table or in `images/` there."""

    def __init__(self, table: Path, images: Path | None):
        if images is not None and not images.is_dir():
            raise FileNotFoundError(f"data.images={images} is not a folder")
        self.roots = [images] if images is not None else [table.parent, table.parent / "images"]
        self._by_name = images is not None

    def find(self, cell: str) -> Path | None:
        if not cell.strip():
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
    csv.field_size_limit(_MAX_FIELD_CHARS)
    lines = _read_lines(path)
    header_row = next(csv.reader(lines[:1]), [])
    header = [column.strip() for column in header_row]
    layout = _detect_layout(path, header)
    finder = _ImageFinder(path, Path(images) if images is not None else None)
    cutter = CoarsePromptCutter(count_tokens)
    records, bad, total = [], [], 0
    for row in _rows(lines, 1):
        total += 1
        parsed = _parse_row(row, layout, header, finder, cutter, clean)
        (bad if isinstance(parsed, BadRecord) else records).append(parsed)
    return ReadTable(layout, records, bad, total, any(record.image is not None for record in records))


def _parse_row(row: _Row, layout: str, header: list[str], finder: _ImageFinder, cutter: CoarsePromptCutter, clean) -> CFPRecord | BadRecord:
    def bad(reason: str, detail: str) -> BadRecord:
        return BadRecord(row.id, row.line, reason, detail)

    if row.problem:
        return bad("quoting", f"line {row.line}: {row.problem}")
    if len(row.fields) != len(header):
        return bad("short_row" if len(row.fields) < len(header) else "long_row", f"{len(row.fields)} fields, not {len(header)}")
    cells = dict(zip(header, row.fields, strict=True))
    for column, cell in cells.items():
        if _SURROGATE.search(cell) or "\0" in cell:
            return bad("encoding", f"the column {column!r} holds bytes that are not UTF-8 text")
    fine_column, coarse_column, image_column = LAYOUTS[layout]
    clean = clean or (lambda text: text)
    fine = clean(cells[fine_column])
    if not fine.strip():
        return bad("empty_prompt", f"the column {fine_column!r} holds no words")
    if layout == "image table":
        coarse: tuple[str, ...] = cutter(fine)
    elif layout == "coarse-fine table":
        try:
            coarse = tuple(clean(text) for text in parse_coarse_list(cells[coarse_column]))
        except ValueError as error:
            return bad("coarse_list", str(error))
    else:
        coarse = (clean(cells[coarse_column]),)
    if not all(text.strip() for text in coarse):
        return bad("empty_prompt", f"the column {coarse_column!r} holds no words")
    metadata = {column: cell for column, cell in cells.items() if column not in (fine_column, coarse_column)}
    return CFPRecord(row.id, fine, coarse, finder.find(cells[image_column]), None, metadata)


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

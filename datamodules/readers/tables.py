"""Tables in text, in every layout in which coarse-fine prompt data is found, told by the header:

1. the authors' image table: `prompt,step,seed,height,width,cfg,sampler,image_name,image_path`; coarse prompts are cut from
   the fine ones;
2. that table with `coarse-grained prompt` (a list of three `{"prompt": ...}`) and `fine-grained prompt`;
3. plain `coarse,fine,image`.

Other columns are kept as metadata. A damaged row costs itself and nothing after it. The readers of other sources give the same records
and the same reasons.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.readers.collecting import Collector
from datamodules.readers.delimited import CSVRow, DelimitedText, columns_found, is_json_lines, read_delimited
from datamodules.readers.evaluation_prompts import is_list_of_prompts
from datamodules.readers.record_parser import COARSE_LIST_COLUMN, Columns, ReadTable, RecordParser
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


def _detect_layout(path: Path, text: DelimitedText) -> tuple[str, list[str]]:
    """The layout's name, and the header with its columns as the layout spells them. Raises ValueError where none fits."""
    for layout, columns in LAYOUTS.items():
        header = as_known(text.header, [column for column in columns if column])
        if all(column in header for column in columns if column):
            repeated = [column for column in columns if column and header.count(column) > 1]
            if repeated:
                raise ValueError(f"{path}: the column {repeated[0]!r} is there {header.count(repeated[0])} times")
            return layout, header
    hint = "; a list of prompts alone can be data.test_source, not data.source" if is_list_of_prompts(path) else ""
    if is_json_lines(path, text.lines):
        raise ValueError(
            f"{path}: unknown table layout: it holds JSON, not CSV; as metadata.jsonl of a folder, with a column file_name, its lines are "
            f"read (data.source=FOLDER), or save it as CSV or parquet{hint}"
        )
    found = columns_found(text.lines, text.header)
    raise ValueError(f"{path}: unknown table layout; columns found: {found}; expected {_LAYOUT_HELP}{hint}")


def as_known(header: list[str], known: Sequence[str]) -> list[str]:
    """A header with its columns spelt as those that are known, where they differ in case alone."""
    spelt = {name.lower(): name for name in known if name not in header}
    return [spelt.get(column.lower(), column) for column in header]


def read_table(path: Path, images: Path | None, count_tokens: Callable[[str], int], clean: Callable[[str], str] | None = None) -> ReadTable:
    """Read a CFP table of any layout. Prompts are kept verbatim unless `clean` is given.

    `images` is the folder of the pictures (default: the table's own, or `images` in it). A picture that is not found leaves
    `image` None: whether that is an error depends on the run. Raises FileNotFoundError for a missing table or folder,
    ValueError for an unknown header and for what is no table in text.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"data.source={path} is not a file; name a CSV table, or use tiny")
    text = read_delimited(path, [column for columns in LAYOUTS.values() for column in columns if column])
    layout, header = _detect_layout(path, text)
    collected = Collector(Source(path, images, count_tokens, clean))
    parser = collected.parser(LAYOUTS[layout], collected.finder(path).find)
    for row in text.rows():
        collected.add(parse_csv_row(row, header, parser))
    return collected.read(layout)


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

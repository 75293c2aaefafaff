"""A folder of pictures with metadata.csv, metadata.jsonl or metadata.parquet, as the `imagefolder` builder reads them (the column
`file_name` says what picture a row is of), or with a .txt caption beside each picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.decoding import picture_suffixes
from datamodules.readers.arrow import python_values, short
from datamodules.readers.caption_files import CAPTION_SUFFIXES, SEVERAL_LINES, pair_captions, read_caption
from datamodules.readers.collecting import (
    COARSE_COLUMNS,
    FINE_COLUMNS,
    METADATA_FILES,
    Collector,
    FindImage,
    choose_columns,
    files_in,
    first_of,
    split_named_by,
)
from datamodules.readers.delimited import columns_found, read_delimited, read_lines
from datamodules.readers.record_parser import Columns, ReadTable
from datamodules.readers.register import Reader, Source, register
from datamodules.readers.tables import parse_csv_row
from datamodules.records import BadRecord
from datamodules.stored_images import StoredImage

_FILE_COLUMNS = ("file_name", "image_file_name")


def _pictures(files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in picture_suffixes()]


def _metadata(files: list[Path]) -> list[Path]:
    return [file for file in files if file.name in METADATA_FILES]


def _captions(files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in CAPTION_SUFFIXES]


def _fits(path: Path) -> bool:
    files = files_in(path) if path.is_dir() else []
    return bool(_metadata(files) or (_pictures(files) and _captions(files)))


def read_image_folder(source: Source) -> ReadTable:
    """Every picture that a metadata file or a caption beside it describes. Raises ValueError for a metadata file that says too little."""
    files = files_in(source.path)
    collected = Collector(source)
    read = _read_metadata if _metadata(files) else _read_captions
    return collected.table("image folder", read(collected, source.path, files))


def _read_metadata(collected: Collector, root: Path, files: list[Path]) -> Columns:
    named: set[Path | StoredImage | None] = set()
    for file in _metadata(files):
        find = collected.finder(file).find

        def find_and_remember(cell: Any, find: FindImage = find) -> Path | StoredImage | None:
            found = find(cell)
            named.add(found)
            return found

        reader = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[file.suffix]
        columns = reader(collected, file, find_and_remember)
    for picture in _pictures(files):
        if picture not in named:
            collected.add(BadRecord(collected.total, 0, "no_caption", f"{picture.relative_to(root)} is in no metadata file"))
    return columns


def _csv(collected: Collector, file: Path, find: FindImage) -> Columns:
    text = read_delimited(file, (*_FILE_COLUMNS, *FINE_COLUMNS, *COARSE_COLUMNS))
    columns = _metadata_columns(file, text.header, columns_found(text.lines, text.header))
    parser = collected.parser(columns, find)
    first = collected.total
    for row in text.rows():
        collected.add(parse_csv_row(row, text.header, parser, first))
    return columns


def _jsonl(collected: Collector, file: Path, find: FindImage) -> Columns:
    rows: list[tuple[int, dict | None, str]] = []
    there: dict[str, None] = {}
    for line, text in enumerate(read_lines(file), start=1):
        if text.strip():
            try:
                value = json.loads(text)
                problem = "" if isinstance(value, dict) else f"line {line}: not an object"
            except (ValueError, RecursionError) as error:
                value, problem = None, f"line {line}: {error}"
            rows.append((line, None if problem else value, problem))
            there |= dict.fromkeys(value) if not problem else {}
    none = f"none, as no line is a JSON object ({rows[0][2]})" if rows else "none (the file is empty)"
    columns = _metadata_columns(file, list(there), none if not there else "")
    parser = collected.parser(columns, find)
    for line, cells, problem in rows:
        if cells is None:
            collected.add(BadRecord(collected.total, line, "malformed", problem))
        else:
            collected.add(parser.parse(collected.total, line, dict.fromkeys(there) | cells))
    return columns


def _parquet(collected: Collector, file: Path, find: FindImage) -> Columns:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"data.source: {file} cannot be read as parquet ({short(error)}): fetch it again") from error
    columns = _metadata_columns(file, table.schema.names)
    parser = collected.parser(columns, find)
    cells = {name: python_values(table.column(name)) for name in table.schema.names}
    for row in range(table.num_rows):
        collected.add(parser.parse(collected.total, 0, {name: column[row] for name, column in cells.items()}))
    return columns


def _metadata_columns(file: Path, there: list[str], found: str = "") -> Columns:
    image = first_of(_FILE_COLUMNS, there)
    if image is None:
        found = found or ", ".join(repr(name[:40]) for name in there[:20]) or "none"
        raise ValueError(f"{file}: no column file_name, which says what picture a row is of; columns found: {found}")
    return choose_columns(file, there, image)


def _read_captions(collected: Collector, root: Path, files: list[Path]) -> Columns:
    pictures = _pictures(files)
    caption_of, alone = pair_captions(pictures, _captions(files))
    beside = _by_stem([file for file in files if file not in caption_of and file.suffix.lower() not in CAPTION_SUFFIXES])
    columns = Columns("caption", None, "image")
    parsers = {
        split: collected.parser(columns, lambda cell: root / cell if cell else None, split)
        for split in {split_named_by(file, root) for file in pictures}
    }
    for file in sorted([*pictures, *alone], key=str):
        caption, name, others = caption_of.get(file), file.relative_to(root), beside.get(file.with_suffix(""), [])
        if caption is not None:
            try:
                text, num_lines = read_caption(caption)
                if num_lines > 1:
                    collected.count(SEVERAL_LINES)
                cells = {"caption": text, "image": str(name)}
                collected.add(parsers[split_named_by(file, root)].parse(collected.total, 0, cells))
            except ValueError as error:
                collected.add(BadRecord(collected.total, 0, "malformed", str(error).removeprefix(f"{root}/")))
        elif file in caption_of:
            there = f" ({', '.join(others[:3])} is there)" if others else ""
            collected.add(BadRecord(collected.total, 0, "no_caption", f"{name} has no {file.stem}.txt beside it{there}"))
        else:
            there = f" that can be decoded here ({', '.join(others[:3])} is there)" if others else ""
            collected.add(BadRecord(collected.total, 0, "missing_image", f"{name} has no picture beside it{there}"))
    return columns


def _by_stem(files: list[Path]) -> dict[Path, list[str]]:
    names: dict[Path, list[str]] = {}
    for file in files:
        names.setdefault(file.with_suffix(""), []).append(file.name)
    return names


register(Reader("image folder", _fits, read_image_folder, folder="pictures with metadata.csv, metadata.jsonl or .txt captions", order=130))

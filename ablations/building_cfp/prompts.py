"""Reads a list of prompts: a text file, one a line, or a CSV, TSV, JSON, JSONL or parquet file with a named column."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.runtime.errors import UserError
from datamodules.readers.delimited import DELIMITED_SUFFIXES, JSON_LINES_SUFFIXES, read_delimited, read_lines
from datamodules.records import BadRecord

# Tried in this order, in any case, where no column is named.
COLUMNS = ("prompt", "text", "fine-grained prompt", "fine", "caption")
FORMATS = ("CSV", "TSV", "JSON", "JSONL", "parquet")
_UNREADABLE = re.compile("[\ud800-\udfff\0]")


@dataclass(frozen=True)
class Prompt:
    """A fine prompt, verbatim; `id` is its place in its source, from 0, bad ones counted."""

    id: int
    text: str


@dataclass(frozen=True)
class _Row:
    value: Any
    line: int = 0
    problem: str = ""


def read_prompts(path: Path, column: str | None, limit: int | None) -> tuple[list[Prompt], list[BadRecord]]:
    """The prompts of a file and what is wrong with the others; `limit` takes the first so many.

    Raises UserError for a file that cannot be read, or has no such column, or no prompt.
    """
    if not os.path.isfile(path):  # not path.is_file(): it raises for names that are too long
        raise UserError(f"--prompts {path}: there is no such file")
    prompts, bad = [], []
    try:
        for number, row in enumerate(_rows(path, column)):
            if limit is not None and number >= limit:
                break
            reason, detail = _problem(row)
            if reason:
                bad.append(BadRecord(number, row.line, reason, detail))
            else:
                prompts.append(Prompt(number, row.value))
    except UserError:
        raise
    except (ValueError, OSError) as error:
        raise UserError(f"--prompts {error}") from error
    if not prompts:
        raise UserError(f"--prompts {path}: there is no prompt in it" + (f" ({len(bad)} bad rows; first: {bad[0].detail})" if bad else ""))
    return prompts, bad


def _rows(path: Path, column: str | None) -> Iterator[_Row]:
    """The rows of a file, by its suffix; a text of another suffix is read as a table where its first line is the header of one."""
    tables = dict.fromkeys(DELIMITED_SUFFIXES, _csv)
    reader = {**tables, **dict.fromkeys(JSON_LINES_SUFFIXES, _jsonl), ".json": _json, ".parquet": _parquet}.get(path.suffix.lower())
    if reader is None and _has_a_header(path, column):
        reader = _csv
    if reader is None and column is not None:
        raise UserError(
            f"--column {column}: {path.name} is read as plain text, one prompt a line; columns are in {', '.join(FORMATS)} files"
        )
    return reader(path, column) if reader else _plain_text(path)


def _has_a_header(path: Path, column: str | None) -> bool:
    """Whether the first line has several columns by tabs, of which one is that of the prompts: no prompt reads so."""
    wanted = COLUMNS if column is None else (column.lower(),)
    text = read_delimited(path, wanted)
    return text.delimiter == "\t" and len(text.header) > 1 and any(name.lower() in wanted for name in text.header)


def _problem(row: _Row) -> tuple[str, str]:
    if row.problem:
        return "malformed", row.problem
    if row.value is None or (isinstance(row.value, str) and not row.value.strip()):
        return "empty_prompt", "no words"
    if not isinstance(row.value, str):
        return "not_text", f"{row.value!r:.60} is not a text"
    if _UNREADABLE.search(row.value):
        return "encoding", "bytes that are not UTF-8 text"
    return "", ""


def _plain_text(path: Path) -> Iterator[_Row]:
    lines = [line.rstrip("\r\n") for line in read_lines(path)]
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield _Row(line, number)


def _csv(path: Path, column: str | None) -> Iterator[_Row]:
    text = read_delimited(path, COLUMNS if column is None else (column,))
    header = text.header
    place = header.index(_choose(path, column, header))
    for row in text.rows():
        wrong = row.problem or (f"{len(row.fields)} fields, not {len(header)}" if len(row.fields) != len(header) else "")
        yield _Row(None, row.line, wrong) if wrong else _Row(row.fields[place], row.line)


def _json(path: Path, column: str | None) -> Iterator[_Row]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"--prompts {path}: not readable as JSON ({error})") from error
    if not isinstance(content, list):
        raise UserError(f"--prompts {path}: expected a list of texts, or of objects with a column")
    yield from _objects(path, column, [_Row(item) for item in content])


def _jsonl(path: Path, column: str | None) -> Iterator[_Row]:
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        if line.strip():
            try:
                rows.append(_Row(json.loads(line), number))
            except (ValueError, RecursionError) as error:
                rows.append(_Row(None, number, f"line {number}: {error}"))
    yield from _objects(path, column, rows)


def _objects(path: Path, column: str | None, rows: list[_Row]) -> Iterator[_Row]:
    """Rows that are texts, or objects with the column."""
    there = list(dict.fromkeys(name for row in rows if isinstance(row.value, dict) for name in row.value))
    if column is None and not there:
        yield from rows
        return
    chosen = _choose(path, column, there)
    for row in rows:
        is_object = isinstance(row.value, dict)
        yield _Row(row.value.get(chosen), row.line) if is_object else _Row(row.value, row.line, row.problem or "not an object")


def _parquet(path: Path, column: str | None) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        chosen = _choose(path, column, file.schema_arrow.names)
        values: Iterable[Any] = (value for batch in file.iter_batches(columns=[chosen]) for value in batch.column(0).to_pylist())
        for value in values:
            yield _Row(value)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise UserError(f"--prompts {path}: not readable as parquet ({type(error).__name__}: {error})") from error


def _choose(path: Path, column: str | None, there: list[str]) -> str:
    found = ", ".join(repr(name[:40]) for name in there[:20]) or "none"
    if column is not None:
        if column not in there:
            raise UserError(f"--column {column}: {path.name} has no such column; columns found: {found}")
        return column
    by_lower = {name.lower(): name for name in reversed(there)}
    chosen = next((by_lower[name] for name in COLUMNS if name in by_lower), None)
    if chosen is None:
        raise UserError(f"--prompts {path}: name the column of the prompts with --column; columns found: {found}")
    return chosen

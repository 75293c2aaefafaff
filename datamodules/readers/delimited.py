"""Delimited text as people write it: commas, semicolons, tabs or bars; UTF-8 or UTF-16, with or without a mark; quoted line breaks.

What is no such text (a workbook, an archive, JSON, a web page) is refused with what it is. A damaged row costs itself and nothing after it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

DELIMITED_SUFFIXES = (".csv", ".tsv", ".tab")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines")
_MAX_FIELD_CHARS = 10_000_000
_DELIMITERS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r"^\"?sep=(.)\"?$")
# A header may have quoted line breaks, within reason.
_HEADER_LINES = 20
# The longer marks first: that of UTF-16 begins that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NOT_TEXT = (
    (b"PK\x03\x04", "a workbook or an archive (zip): save the table as CSV"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook: save the table as CSV"),
    (b"\x1f\x8b", "compressed (gzip): unpack it first"),
    (b"BZh", "compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ", "compressed (xz): unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstandard): unpack it first"),
    (b"PAR1", "parquet: give it the suffix .parquet"),
    (b"ARROW1", "Arrow (feather): save it as parquet or CSV"),
    (b"SQLite format 3", "an SQLite database: save the table as CSV"),
    (b"%PDF", "a PDF"),
    (b"version https://git-lfs", "a Git LFS pointer: fetch the file with git lfs pull"),
)


@dataclass(frozen=True)
class CSVRow:
    """A row of a CSV file: its number, its line, and its fields or what is wrong with it."""

    id: int
    line: int
    fields: list[str]
    problem: str = ""


@dataclass(frozen=True)
class DelimitedText:
    """A table in text: the names of its columns, and the lines that follow, from index `first` on."""

    header: list[str]
    delimiter: str
    lines: list[str]
    first: int

    def rows(self) -> Iterator[CSVRow]:
        """The data rows. After a quoting error reading goes on at the line after the row's first."""
        return csv_rows(self.lines, self.first, self.delimiter, len(self.header))


def read_delimited(path: Path, known: Collection[str]) -> DelimitedText:
    """A table; of the delimiters that is taken which gives most of the `known` columns. Raises ValueError for what is no such text.

    The header is empty for a file without one.
    """
    csv.field_size_limit(_MAX_FIELD_CHARS)
    lines = read_lines(path)
    first = next((number for number, line in enumerate(lines) if line.strip()), len(lines))
    told = _SEP_LINE.match(lines[first].rstrip("\r\n")) if first < len(lines) else None  # as Excel writes it
    first += told is not None
    if first == len(lines):
        return DelimitedText([], ",", lines, first)
    order = sorted(_DELIMITERS, key=lambda delimiter: delimiter != "\t") if path.suffix.lower() in (".tsv", ".tab") else _DELIMITERS
    wanted = {name.lower() for name in known}

    def fit(delimiter: str) -> tuple[int, int]:
        columns, _ = _header(lines, first, delimiter)
        return sum(column.lower() in wanted for column in columns), len(columns)

    delimiter = told.group(1) if told else max(order, key=fit)
    header, after = _header(lines, first, delimiter)
    return DelimitedText(header, delimiter, lines, after)


def _header(lines: list[str], first: int, delimiter: str) -> tuple[list[str], int]:
    """The names of the columns, and the index of the line after them."""
    try:
        reader = csv.reader(lines[first : first + _HEADER_LINES], delimiter=delimiter, strict=True)
        columns, used = next(reader), reader.line_num
    except (csv.Error, StopIteration):
        columns, used = next(csv.reader(lines[first : first + 1], delimiter=delimiter), []), 1
    return [" ".join(column.split()) for column in columns], first + used


def csv_rows(lines: list[str], first: int, delimiter: str = ",", width: int = 0) -> Iterator[CSVRow]:
    """The data rows from line index `first` on. After a quoting error reading goes on at the line after the row's first.

    Files with tabs often have quotes that quote nothing: such a line is taken as it is if it has `width` fields.
    """
    start, row_id = first, 0
    while start < len(lines):
        position = start

        def feed() -> Iterator[str]:
            nonlocal position
            while position < len(lines):
                position += 1
                yield lines[position - 1]

        try:
            for fields in csv.reader(feed(), delimiter=delimiter, strict=True):
                if fields:
                    yield CSVRow(row_id, start + 1, fields)
                    row_id += 1
                start = position
            return
        except csv.Error as error:
            plain = lines[start].rstrip("\r\n").split("\t")
            is_plain = delimiter == "\t" and len(plain) == width
            yield CSVRow(row_id, start + 1, plain) if is_plain else CSVRow(row_id, start + 1, [], str(error))
            row_id += 1
            start += 1


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Bytes that are no text of its encoding stay recognisable, as lone surrogates, in their own line only.

    Raises ValueError for a file that is no text, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: it cannot be read ({error.strerror or error})") from error
    for mark, kind in _NOT_TEXT:
        if content.startswith(mark):
            raise ValueError(f"{path}: it is no text but {kind}")
    if content[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{path}: it is no text but a web page: fetch the file itself")
    return io.StringIO(_decoded(content), newline="").readlines()


def _decoded(content: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark) and content != mark), None) or _utf16_without_mark(content)
    if encoding is None:
        return content.decode("utf-8-sig", "surrogateescape")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return content.decode(encoding, "replace").replace("\ufffd", "\udcff")


def _utf16_without_mark(content: bytes) -> str | None:
    """UTF-16 as some programs write it, told by the zero bytes of every second place."""
    head = content[:64]
    for encoding, zeros, letters in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if zeros and zeros.count(0) > 0.8 * len(zeros) and letters.count(0) == 0:
            return encoding
    return None


def is_json_lines(path: Path, lines: list[str]) -> bool:
    """Whether a file holds a JSON object a line, by its suffix or its first line."""
    if path.suffix.lower() in (".json", *JSON_LINES_SUFFIXES):
        return True
    first = next((line.strip() for line in lines if line.strip()), "")
    if not first.startswith("{"):
        return False
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def columns_found(lines: list[str], columns: Collection[str]) -> str:
    """The columns of a table for a message, or why there are none."""
    if not columns:
        return "none (every line is blank)" if lines else "none (the file is empty)"
    return ", ".join(repr(column[:40]) for column in list(columns)[:20])

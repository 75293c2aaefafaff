"""`read_source`: a path is read by the reader that fits it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from datamodules.readers.collecting import files_in
from datamodules.readers.delimited import DELIMITED_SUFFIXES
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.register import FIRST_OF_THE_PACKAGE, Source, all_readers, what_a_folder_may_have, what_a_source_may_be

# Pictures of formats that Pillow does not open.
NOT_DECODED = frozenset({".heic", ".heif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".exr", ".hdr", ".psb"})


def read_source(
    path: Path, images: Path | None, count_tokens: Callable[[str], int], clean: Callable[[str], str] | None = None
) -> ReadTable:
    """Read whatever lies at `path` with the first reader that it fits: see `datamodules.readers.register`.

    `images` is where relative image paths start (default: beside what names them). Raises FileNotFoundError for what is not there,
    ValueError for a folder or columns that none of the layouts fits.
    """
    path = Path(path)
    if not os.path.exists(path):  # not path.exists(): it raises for names that are too long
        raise FileNotFoundError(f"data.source={str(path)[:200]} is not there; name {what_a_source_may_be()}, or use tiny")
    for reader in all_readers():
        if reader.fits(path):
            return reader.read(Source(path, Path(images) if images is not None else None, count_tokens, clean))
    files = files_in(path)
    tables = [file.name for file in files if file.suffix.lower() in DELIMITED_SUFFIXES and file.parent == path]
    hint = f"; a table there is named itself: data.source={path / tables[0]}" if tables else ""
    found = ", ".join(f"{count} {suffix or 'other'}" for suffix, count in Counter(file.suffix for file in files).most_common(5))
    foreign = sorted({file.suffix.lower() for file in files} & NOT_DECODED)
    hint += f"; {', '.join(foreign)} cannot be decoded here: save them as PNG or JPEG" if foreign else ""
    raise ValueError(f"data.source={path}: the folder has not {what_a_folder_may_have()}; found: {found or 'no'} files{hint}")


def is_read_by_a_plug_in(path: Path) -> bool:
    """Whether a reader from outside the package says that it reads what lies at `path`."""
    return os.path.exists(path) and any(reader.order < FIRST_OF_THE_PACKAGE and reader.fits(path) for reader in all_readers())

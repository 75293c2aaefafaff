"""`read_source`: a path is read by the reader that fits it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.folders import EXPECTED, METADATA_FILES, PICTURE_SUFFIXES, Cleaner, Collector, TokenCounter, is_hidden
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.tables import read_table


def read_source(path: Path, images: Path | None, count_tokens: TokenCounter, clean: Cleaner | None = None) -> ReadTable:
    """Read whatever lies at `path`: a CSV table, parquet, a saved `datasets` folder, or a folder of pictures.

    `images` is where relative image paths start (default: beside what names them). Raises FileNotFoundError for what is not there,
    ValueError for a folder or columns that none of the layouts fits.
    """
    path, images = Path(path), Path(images) if images is not None else None
    if not path.exists():
        raise FileNotFoundError(f"data.source={path} is not there; name a CSV or parquet file, a folder with {EXPECTED}, or use tiny")
    if path.is_file() and path.suffix.lower() != ".parquet":
        return read_table(path, images, count_tokens, clean)
    collected = Collector(images, CoarsePromptCutter(count_tokens), clean)
    if path.is_file():
        return collected.parquet_files(path.parent, [path])
    if (path / "dataset_dict.json").is_file() or ((path / "dataset_info.json").is_file() and (path / "state.json").is_file()):
        return collected.saved_datasets(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and not is_hidden(file.relative_to(path)))
    parquet = [file for file in files if file.suffix.lower() == ".parquet" and file.name not in METADATA_FILES]
    if parquet:
        return collected.parquet_files(path, parquet)
    pictures = [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES]
    metadata = [file for file in files if file.name in METADATA_FILES]
    if metadata:
        return collected.metadata_files(path, metadata, pictures)
    captions = [file for file in files if file.suffix.lower() == ".txt"]
    if pictures and captions:
        return collected.captioned_pictures(path, pictures, captions)
    tables = [file.name for file in files if file.suffix.lower() == ".csv" and file.parent == path]
    hint = f"; a table there is named itself: data.source={path / tables[0]}" if tables else ""
    found = ", ".join(f"{count} {suffix or 'other'}" for suffix, count in Counter(file.suffix for file in files).most_common(5))
    raise ValueError(f"data.source={path}: the folder has not {EXPECTED}; found: {found or 'nothing'} files{hint}")

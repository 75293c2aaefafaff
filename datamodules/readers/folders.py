"""What is not a CSV table, read row by row: parquet, saved `datasets` folders, and folders of pictures. `source` tells them apart.

    FILE.parquet, or a folder with parquet files     an image column holds a path, bytes, or both as `datasets.Image` stores them
    a folder that `save_to_disk` wrote               one data set, or a dictionary of splits
    a folder of pictures                             metadata.csv, metadata.jsonl or metadata.parquet with the column `file_name`, as
                                                     the `imagefolder` builder reads them, or a .txt caption beside each picture

Columns: the fine prompt is in `fine-grained prompt`, `fine`, `prompt`, `text` or `caption`, the first that is there; the coarse one in
`coarse-grained prompt` (a list of three) or `coarse`, else it is cut from the fine one. Splits that a source brings (files, folders,
a dictionary) are read one after the other: what is held out is decided as for tables, by a hash of the text, so that equal prompts never
fall on both sides. Pictures inside parquet and saved folders stay there until they are needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datamodules.readers.coarse_prompts import CoarsePromptCutter
from datamodules.readers.record_parser import COARSE_LIST_COLUMN, Columns, ImageFinder, ReadTable, RecordParser
from datamodules.readers.tables import csv_rows, parse_csv_row, read_csv_header, read_lines
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import StoredImage, open_saved

FINE_COLUMNS = ("fine-grained prompt", "fine", "prompt", "text", "caption")
COARSE_COLUMNS = (COARSE_LIST_COLUMN, "coarse")
IMAGE_COLUMNS = ("image", "image_path", "file_name", "image_file_name")
# As webdataset calls a picture's bytes.
BINARY_COLUMNS = ("png", "jpg", "jpeg", "webp")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
EXPECTED = (
    "a saved datasets folder (dataset_info.json or dataset_dict.json), parquet files, or pictures with metadata.csv, metadata.jsonl or "
    ".txt captions"
)
_ROWS_AT_ONCE = 4096

TokenCounter = Callable[[str], int]
Cleaner = Callable[[str], str]
FindImage = Callable[[Any], "Path | StoredImage | None"]


def is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _first_of(names: tuple[str, ...], there: list[str]) -> str | None:
    return next((name for name in names if name in there), None)


def _choose_columns(where: Path, there: list[str], image: str | None) -> Columns:
    """The columns to read. Raises ValueError if none holds the fine prompt."""
    fine = _first_of(FINE_COLUMNS, there)
    if fine is None:
        found = ", ".join(repr(name[:40]) for name in there[:20]) or "none"
        raise ValueError(f"{where}: no column holds the fine prompt; columns found: {found}; expected one of {', '.join(FINE_COLUMNS)}")
    return Columns(fine, _first_of(COARSE_COLUMNS, there), image)


class Collector:
    """Records and bad records of one source, numbered from 0 over all its files."""

    def __init__(self, images: Path | None, cutter: CoarsePromptCutter, clean: Cleaner | None):
        self._images, self._cutter, self._clean = images, cutter, clean
        self._records: list[CFPRecord] = []
        self._bad: list[BadRecord] = []
        self._total = 0

    # -- parquet and saved data sets ------------------------------------------------------------------------------------

    def parquet_files(self, root: Path, files: list[Path]) -> ReadTable:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in files:
            finder = ImageFinder(file, self._images)
            try:
                # Texts are small: only the columns that are kept are read, and never a picture.
                reader = pq.ParquetFile(file, memory_map=True)
                plan = _ArrowPlan(file, reader.schema_arrow, finder, root)
                columns = plan.columns
                for batch in reader.iter_batches(_ROWS_AT_ONCE, columns=plan.text_columns):
                    self._arrow_rows(batch, plan)
            except (pa.ArrowException, OSError) as error:
                raise ValueError(
                    f"data.source: {file} cannot be read as parquet ({_short(error)}): fetch it again, or remove it"
                ) from error
        return self._table("parquet", columns)

    def saved_datasets(self, root: Path) -> ReadTable:
        import pyarrow as pa

        splits = root / "dataset_dict.json"
        try:
            folders = [root / split for split in json.loads(splits.read_bytes())["splits"]] if splits.is_file() else [root]
            tables = {folder: open_saved(folder).data.table for folder in folders}
            if not tables:
                raise ValueError("it has no splits")
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"data.source: {root} cannot be read as a saved data set ({_short(error)}): save it again") from error
        for folder, table in tables.items():
            plan = _ArrowPlan(folder, table.schema, ImageFinder(folder / "table", self._images), root)
            columns = plan.columns
            for batch in table.select(plan.text_columns).to_batches(_ROWS_AT_ONCE):
                self._arrow_rows(batch, plan)
        return self._table("datasets folder", columns)

    def _arrow_rows(self, batch: Any, plan: _ArrowPlan) -> None:
        cells = {name: _python_values(batch.column(name)) for name in batch.schema.names}
        parser = RecordParser(plan.columns, plan.find, self._cutter, self._clean)
        for row in range(batch.num_rows):
            values = {name: column[row] for name, column in cells.items()}
            if plan.image_is_stored:
                values[plan.columns.image] = StoredImage(plan.container, plan.columns.image, plan.rows, plan.roots)
            self._add(parser.parse(self._total, 0, values))
            plan.rows += 1

    # -- folders of pictures --------------------------------------------------------------------------------------------

    def metadata_files(self, root: Path, files: list[Path], pictures: list[Path]) -> ReadTable:
        named: set[Path] = set()
        for file in files:
            find = ImageFinder(file, self._images).find

            def find_and_remember(cell: Any, find: FindImage = find) -> Path | StoredImage | None:
                found = find(cell)
                named.add(found)
                return found

            reader = {".csv": self._metadata_csv, ".jsonl": self._metadata_jsonl, ".parquet": self._metadata_parquet}[file.suffix]
            columns = reader(file, find_and_remember)
        for picture in pictures:
            if picture not in named:
                self._add(BadRecord(self._total, 0, "no_caption", f"{picture.relative_to(root)} is in no metadata file"))
        return self._table("image folder", columns)

    def _metadata_csv(self, file: Path, find: FindImage) -> Columns:
        lines = read_lines(file)
        header = read_csv_header(lines)
        columns = _metadata_columns(file, header)
        parser = RecordParser(columns, find, self._cutter, self._clean)
        first = self._total
        for row in csv_rows(lines, 1):
            self._add(parse_csv_row(row, header, parser, first))
        return columns

    def _metadata_jsonl(self, file: Path, find: FindImage) -> Columns:
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
        columns = _metadata_columns(file, list(there))
        parser = RecordParser(columns, find, self._cutter, self._clean)
        for line, cells, problem in rows:
            if cells is None:
                self._add(BadRecord(self._total, line, "malformed", problem))
            else:
                self._add(parser.parse(self._total, line, dict.fromkeys(there) | cells))
        return columns

    def _metadata_parquet(self, file: Path, find: FindImage) -> Columns:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(file, partitioning=None)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"data.source: {file} cannot be read as parquet ({_short(error)}): fetch it again") from error
        columns = _metadata_columns(file, table.schema.names)
        parser = RecordParser(columns, find, self._cutter, self._clean)
        cells = {name: _python_values(table.column(name)) for name in table.schema.names}
        for row in range(table.num_rows):
            self._add(parser.parse(self._total, 0, {name: column[row] for name, column in cells.items()}))
        return columns

    def captioned_pictures(self, root: Path, pictures: list[Path], captions: list[Path]) -> ReadTable:
        caption_of = {file.with_suffix(""): file for file in captions}
        found = {picture.with_suffix("") for picture in pictures}
        columns = Columns("caption", None, "image")
        parser = RecordParser(columns, lambda cell: root / cell if cell else None, self._cutter, self._clean)
        entries = [(picture, caption_of.get(picture.with_suffix(""))) for picture in pictures]
        entries += [(None, caption) for stem, caption in caption_of.items() if stem not in found]
        for picture, caption in sorted(entries, key=lambda entry: str(entry[0] or entry[1])):
            if caption is None:
                self._add(BadRecord(self._total, 0, "no_caption", f"{picture.relative_to(root)} has no {picture.stem}.txt beside it"))
            elif picture is None:
                self._add(BadRecord(self._total, 0, "missing_image", f"{caption.relative_to(root)} has no picture beside it"))
            else:
                text = "".join(read_lines(caption)).strip()
                self._add(parser.parse(self._total, 0, {"caption": text, "image": str(picture.relative_to(root))}))
        return self._table("image folder", columns)

    # -- what was collected ---------------------------------------------------------------------------------------------

    def _add(self, parsed: CFPRecord | BadRecord) -> None:
        (self._bad if isinstance(parsed, BadRecord) else self._records).append(parsed)
        self._total += 1

    def _table(self, kind: str, columns: Columns) -> ReadTable:
        if not self._total:
            raise ValueError(f"data.source: the {kind} has no rows")
        layout = f"{kind}: {', '.join(repr(column) for column in columns if column)}"
        return ReadTable(layout, self._records, self._bad, self._total, any(record.image is not None for record in self._records))


class _ArrowPlan:
    """How the rows of one parquet file or saved data set become records; `rows` counts those that were read."""

    def __init__(self, container: Path, schema: Any, finder: ImageFinder, root: Path):
        import pyarrow.types as types

        def is_text(kind: Any) -> bool:
            return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_dictionary(kind)

        def is_binary(kind: Any) -> bool:
            return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)

        def is_stored(name: str, kind: Any) -> bool:
            if types.is_struct(kind):
                return "bytes" in [kind.field(i).name for i in range(kind.num_fields)]
            return is_binary(kind) and name in (*IMAGE_COLUMNS, *BINARY_COLUMNS)

        kinds = dict(zip(schema.names, schema.types, strict=True))
        stored = [name for name, kind in kinds.items() if is_stored(name, kind)]
        image = _first_of(IMAGE_COLUMNS, stored) or next(iter(stored), None)
        image = image or _first_of(IMAGE_COLUMNS, [name for name, kind in kinds.items() if is_text(kind)])
        self.container, self.rows = container, 0
        self.columns = _choose_columns(container, [name for name in kinds if name not in stored], image)
        self.image_is_stored = image in stored
        # Relative paths may also start at the root of the source: its files are often in a folder of their own, such as data/.
        self.roots = (*finder.roots, root)
        self._finder = finder
        # Nested columns and other pictures would cost memory for nothing.
        kept = [name for name, kind in kinds.items() if not types.is_nested(kind) and not is_binary(kind)]
        wanted = {self.columns.fine, self.columns.coarse}
        self.text_columns = [name for name in kinds if name in kept or name in wanted]

    def find(self, cell: Any) -> Path | StoredImage | None:
        if isinstance(cell, StoredImage):
            return cell
        found = self._finder.find(cell) if isinstance(cell, str) else None
        return found or next((root / cell for root in self.roots if isinstance(cell, str) and cell and (root / cell).is_file()), None)


def _metadata_columns(file: Path, there: list[str]) -> Columns:
    image = _first_of(("file_name", "image_file_name"), there)
    if image is None:
        found = ", ".join(repr(name[:40]) for name in there[:20]) or "none"
        raise ValueError(f"{file}: no column file_name, which says what picture a row is of; columns found: {found}")
    return _choose_columns(file, there, image)


def _python_values(column: Any) -> list[Any]:
    """A column as Python values. Texts that are not UTF-8 keep their bytes as lone surrogates, and spoil their own row only."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type):
        values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    return column.to_pylist()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"

"""Rows of Arrow tables, of parquet files and saved data sets, as records: columns told by their types, pictures left where they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from datamodules.decoding import picture_suffixes
from datamodules.readers.collecting import Collector, choose_columns, first_of
from datamodules.readers.image_finder import ImageFinder
from datamodules.stored_images import StoredImage

IMAGE_COLUMNS = ("image", "image_path", "file_name", "image_file_name")
ROWS_AT_ONCE = 4096
# Pictures that a fine picture was made from or with, as data sets for ControlNet and for editing have them.
_NOT_FINE = re.compile(
    r"(?i)(^|_|-)(condition(ing)?|control|input|source|original|reference|mask|depth|canny|edges?|pose|sketch|seg\w*)(_|-|$)"
)


class ArrowPlan:
    """How the rows of one parquet file or saved data set become records; `rows` counts those that were read.

    Raises ValueError where no column holds the fine prompt, or where it is not plain which picture is the fine one.
    """

    def __init__(self, container: Path, schema: Any, finder: ImageFinder):
        import pyarrow.types as types

        kinds = dict(zip(schema.names, schema.types, strict=True))
        stored = [name for name, kind in kinds.items() if _is_stored(name, kind)]
        texts = [name for name, kind in kinds.items() if _is_text(kind)]
        image = first_of(IMAGE_COLUMNS, stored) or first_of(IMAGE_COLUMNS, texts) or _only_fine(container, stored)
        self.container, self.rows, self.roots = container, 0, finder.roots
        self.columns = choose_columns(container, [name for name in kinds if name not in stored], image)
        self.image_is_stored = image in stored
        kind = kinds.get(image)
        # Whether a cell may name a file in place of holding its bytes.
        self.may_name_files = self.image_is_stored and types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}
        self._finder = finder
        # Nested columns and other pictures would cost memory for nothing.
        kept = [name for name, kind in kinds.items() if not types.is_nested(kind) and not _is_binary(kind)]
        wanted = {self.columns.fine, self.columns.coarse}
        self.text_columns = [name for name in kinds if name in kept or name in wanted]

    def find(self, cell: Any) -> Path | StoredImage | None:
        return cell if isinstance(cell, StoredImage) else self._finder.find(cell)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_dictionary(kind)


def _is_binary(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _is_stored(name: str, kind: Any) -> bool:
    """Whether a column holds pictures: `datasets.Image`, or bytes under a usual name or, as webdataset calls it, a format's suffix."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return "bytes" in [field.name for field in kind]
    return _is_binary(kind) and (name in IMAGE_COLUMNS or f".{name.lower()}" in picture_suffixes())


def _only_fine(container: Path, stored: list[str]) -> str | None:
    fine = [name for name in stored if not _NOT_FINE.search(name)]
    if len(fine) > 1:
        raise ValueError(
            f"{container}: which of the columns {', '.join(map(repr, fine[:5]))} holds the fine pictures is not plain: call it 'image'"
        )
    return fine[0] if fine else None


def add_rows(collected: Collector, batch: Any, plan: ArrowPlan) -> None:
    """Take in the rows of a record batch with the plan's text columns and, where cells name files, the column of pictures."""
    cells = {name: python_values(batch.column(name)) for name in plan.text_columns}
    paths = _paths(batch, plan)
    parser = collected.parser(plan.columns, plan.find)
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in cells.items()}
        if plan.image_is_stored:
            stored = StoredImage(plan.container, plan.columns.image, plan.rows, plan.roots)
            values[plan.columns.image] = paths[row] if paths and paths[row] else stored
        collected.add(parser.parse(collected.total, 0, values))
        plan.rows += 1


def _paths(batch: Any, plan: ArrowPlan) -> list[str | None]:
    """The path of each row whose picture is a file that its cell names; empty where the batch has no such column."""
    if not plan.may_name_files or plan.columns.image not in batch.schema.names:
        return []
    column = batch.column(plan.columns.image)
    fields = dict(zip([field.name for field in column.type], column.flatten(), strict=True))
    paths = python_values(fields["path"])
    is_stored = fields["bytes"].is_valid().to_pylist() if "bytes" in fields else [False] * len(paths)
    return [None if stored or not isinstance(path, str) else path for path, stored in zip(paths, is_stored, strict=True)]


def python_values(column: Any) -> list[Any]:
    """A column as Python values. Texts that are not UTF-8 keep their bytes as lone surrogates, and spoil their own row only; so do
    lists with such texts. What has no Python value, as a date in the year 20000, is None."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type):
        values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        return [_python_value(cell) for cell in column]


def _python_value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError:
        return "\udcff"
    except (ValueError, OverflowError):
        return None


def short(error: Exception) -> str:
    """An error of a library in a few words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"

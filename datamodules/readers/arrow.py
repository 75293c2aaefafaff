"""Rows of Arrow tables, of parquet files and saved data sets, as records: columns told by their types, pictures left where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.readers.collecting import Collector, choose_columns, first_of
from datamodules.readers.record_parser import ImageFinder
from datamodules.stored_images import StoredImage

IMAGE_COLUMNS = ("image", "image_path", "file_name", "image_file_name")
# As webdataset calls a picture's bytes.
BINARY_COLUMNS = ("png", "jpg", "jpeg", "webp")
ROWS_AT_ONCE = 4096


class ArrowPlan:
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
        image = first_of(IMAGE_COLUMNS, stored) or next(iter(stored), None)
        image = image or first_of(IMAGE_COLUMNS, [name for name, kind in kinds.items() if is_text(kind)])
        self.container, self.rows = container, 0
        self.columns = choose_columns(container, [name for name in kinds if name not in stored], image)
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


def add_rows(collected: Collector, batch: Any, plan: ArrowPlan) -> None:
    """Take in the rows of a record batch with the plan's text columns."""
    cells = {name: python_values(batch.column(name)) for name in batch.schema.names}
    parser = collected.parser(plan.columns, plan.find)
    for row in range(batch.num_rows):
        values = {name: column[row] for name, column in cells.items()}
        if plan.image_is_stored:
            values[plan.columns.image] = StoredImage(plan.container, plan.columns.image, plan.rows, plan.roots)
        collected.add(parser.parse(collected.total, 0, values))
        plan.rows += 1


def python_values(column: Any) -> list[Any]:
    """A column as Python values. Texts that are not UTF-8 keep their bytes as lone surrogates, and spoil their own row only."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type):
        values = column.cast(pa.large_string()).cast(pa.large_binary()).to_pylist()
        return [value if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    return column.to_pylist()


def short(error: Exception) -> str:
    """An error of a library in a few words."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"

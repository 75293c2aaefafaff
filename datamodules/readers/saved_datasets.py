"""A folder that `save_to_disk` of the datasets library wrote: one data set, or a dictionary of splits.

Pictures inside it stay there until they are needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.readers.arrow import ROWS_AT_ONCE, ArrowPlan, add_rows, short
from datamodules.readers.collecting import Collector
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.register import Reader, Source, register
from datamodules.stored_images import open_saved


def _fits(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or ((path / "dataset_info.json").is_file() and (path / "state.json").is_file())


def read_saved_datasets(source: Source) -> ReadTable:
    """Every row of all splits. Raises ValueError for a folder that is not as `save_to_disk` leaves it."""
    import pyarrow as pa

    root, collected = source.path, Collector(source)
    try:
        tables = _tables(root)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(root, error) from error
    for folder, table in tables.items():
        plan = ArrowPlan(folder, table.schema, collected.finder(folder / "table", root))
        columns = plan.columns
        try:
            for batch in table.select([*plan.text_columns, *([columns.image] if plan.may_name_files else [])]).to_batches(ROWS_AT_ONCE):
                add_rows(collected, batch, plan)
        except (pa.ArrowException, OSError, SystemError) as error:  # the last for lengths that cannot be
            raise _unreadable(folder, error) from error
    return collected.table("datasets folder", columns)


def _tables(root: Path) -> dict[Path, Any]:
    """The Arrow table of each split by its folder, memory-mapped."""
    splits = root / "dataset_dict.json"
    folders = [root / split for split in json.loads(splits.read_bytes())["splits"]] if splits.is_file() else [root]
    if not folders:
        raise ValueError("it has no splits")
    return {folder: open_saved(folder).data.table for folder in folders}


def _unreadable(folder: Path, error: Exception) -> ValueError:
    return ValueError(f"data.source: {folder} cannot be read as a saved data set ({short(error)}): save it again")


register(
    Reader(
        "saved datasets",
        _fits,
        read_saved_datasets,
        folder="a saved datasets folder (dataset_info.json or dataset_dict.json)",
        order=110,
    )
)

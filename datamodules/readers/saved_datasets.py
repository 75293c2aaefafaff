"""A folder that `save_to_disk` of the datasets library wrote: one data set, or a dictionary of splits.

Pictures inside it stay there until they are needed.
"""

from __future__ import annotations

import json
from pathlib import Path

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
    splits = root / "dataset_dict.json"
    try:
        folders = [root / split for split in json.loads(splits.read_bytes())["splits"]] if splits.is_file() else [root]
        tables = {folder: open_saved(folder).data.table for folder in folders}
        if not tables:
            raise ValueError("it has no splits")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"data.source: {root} cannot be read as a saved data set ({short(error)}): save it again") from error
    for folder, table in tables.items():
        plan = ArrowPlan(folder, table.schema, collected.finder(folder / "table", root))
        columns = plan.columns
        for batch in table.select([*plan.text_columns, *([columns.image] if plan.may_name_files else [])]).to_batches(ROWS_AT_ONCE):
            add_rows(collected, batch, plan)
    return collected.table("datasets folder", columns)


register(
    Reader(
        "saved datasets",
        _fits,
        read_saved_datasets,
        folder="a saved datasets folder (dataset_info.json or dataset_dict.json)",
        order=110,
    )
)

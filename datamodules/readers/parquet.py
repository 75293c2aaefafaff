"""Parquet: a file, or a folder with files. An image column holds a path, bytes, or both as `datasets.Image` stores them.

Pictures inside the files stay there until they are needed.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from datamodules.readers.arrow import ROWS_AT_ONCE, ArrowPlan, add_rows, short
from datamodules.readers.collecting import METADATA_FILES, Collector, files_in
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.register import Reader, Source, register

# How many rows with their pictures are read at once, and how much of a column of pictures is read to know whether it names files.
ROWS_WITH_PICTURES = 64
QUICK_BYTES = 64_000_000


def _files(path: Path) -> list[Path]:
    files = [path] if path.is_file() else files_in(path)
    return [file for file in files if file.suffix.lower() == ".parquet" and (path.is_file() or file.name not in METADATA_FILES)]


def read_parquet(source: Source) -> ReadTable:
    """Every row of a parquet file, or of all of a folder. Raises ValueError for a file that cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = source.path.parent if source.path.is_file() else source.path
    collected = Collector(source)
    for file in _files(source.path):
        # Relative paths may also start at the root of the source: its files are often in a folder of their own, such as data/.
        finder = collected.finder(file, root)
        try:
            # Texts are small: only the columns that are kept are read, and never a picture.
            reader = pq.ParquetFile(file, memory_map=True)
            plan = ArrowPlan(file, reader.schema_arrow, finder)
            columns = plan.columns
            further = [_of_pictures(reader.metadata.row_group(group), plan) for group in range(reader.num_row_groups)]
            for of_pictures, groups in groupby(range(len(further)), further.__getitem__):
                rows = ROWS_WITH_PICTURES if f"{plan.columns.image}.bytes" in of_pictures else ROWS_AT_ONCE
                for batch in reader.iter_batches(rows, row_groups=list(groups), columns=[*plan.text_columns, *of_pictures]):
                    add_rows(collected, batch, plan)
        except (pa.ArrowException, OSError, SystemError) as error:
            raise ValueError(f"data.source: {file} cannot be read as parquet ({short(error)}): fetch it again, or remove it") from error
    return collected.table("parquet", columns)


def _of_pictures(group: Any, plan: ArrowPlan) -> tuple[str, ...]:
    """What is read of the column of pictures to know which rows name files: nothing where all have bytes, the paths where none has.

    Where the file does not say how many have bytes, it is read where that is quick; else all are taken to have them.
    """
    if not plan.may_name_files:
        return ()
    name = plan.columns.image
    chunks = (group.column(number) for number in range(group.num_columns))
    chunk = next((chunk for chunk in chunks if chunk.path_in_schema == f"{name}.bytes"), None)
    if chunk is None:
        return ()
    statistics = chunk.statistics
    if statistics is None or not statistics.has_null_count:
        return (f"{name}.bytes", f"{name}.path") if chunk.total_compressed_size <= QUICK_BYTES else ()
    if statistics.null_count == 0:
        return ()
    return (f"{name}.path",) if statistics.null_count == group.num_rows else (f"{name}.bytes", f"{name}.path")


register(Reader("parquet", lambda path: bool(_files(path)), read_parquet, file="parquet", folder="parquet files", order=120))

"""Parquet: a file, or a folder with files. An image column holds a path, bytes, or both as `datasets.Image` stores them.

Pictures inside the files stay there until they are needed.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.readers.arrow import ROWS_AT_ONCE, ArrowPlan, add_rows, short
from datamodules.readers.collecting import METADATA_FILES, Collector, files_in
from datamodules.readers.record_parser import ReadTable
from datamodules.readers.register import Reader, Source, register


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
        finder = collected.finder(file)
        try:
            # Texts are small: only the columns that are kept are read, and never a picture.
            reader = pq.ParquetFile(file, memory_map=True)
            plan = ArrowPlan(file, reader.schema_arrow, finder, root)
            columns = plan.columns
            for batch in reader.iter_batches(ROWS_AT_ONCE, columns=plan.text_columns):
                add_rows(collected, batch, plan)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"data.source: {file} cannot be read as parquet ({short(error)}): fetch it again, or remove it") from error
    return collected.table("parquet", columns)


register(Reader("parquet", lambda path: bool(_files(path)), read_parquet, file="parquet", folder="parquet files", order=120))

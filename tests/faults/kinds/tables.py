"""Tables of every dialect, encoding and notation of pictures' names: read as the records that they mean."""

from __future__ import annotations

from pathlib import Path

from faults.bench import Kind, Tried
from helpers.random_tables import try_tables as _try_tables


def try_tables(seed: int, count: int, folder: Path) -> Tried:
    return Tried("tables", count, _try_tables(seed, count, folder))


KIND = Kind("tables", try_tables, short=60, about="CSV, TSV and kin in every dialect and encoding")

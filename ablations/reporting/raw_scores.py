"""The scores behind the tables, of every cell that enters one, as one small file: so that whoever has the report can compute it again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ablations.reporting.collect import Collection
from ablations.results.prompts_and_scores import write_long_scores

FILE = "tables/scores.parquet"
COLUMNS = ("arm", "seed", "prompt_id", "prompt", "candidate", "condition", "metric", "value")


def long_table(collection: Collection) -> pd.DataFrame:
    """A row for each value, with COLUMNS; `prompt` is the coarse prompt, candidate -1 a value of all candidates together."""
    parts = [
        cell.scores.rename(columns={"coarse": "prompt"}).assign(arm=cell.arm, seed=cell.seed)
        for section in collection.sections
        for cell in section.cells
    ]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def write(collection: Collection, path: Path) -> None:
    """Write the long table. Raises RunFolderError where it cannot be written."""
    write_long_scores(path, long_table(collection))

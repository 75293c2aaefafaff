"""Finished cells from what a report ships: its long table of scores and cells.csv, without the runs that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ablations.config import KEYS
from ablations.config.parsing import Scalar
from ablations.reporting import raw_scores
from ablations.reporting.collect import FinishedCell
from ablations.results.prompts_and_scores import read_long_scores
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.foreign import is_file

CELLS = "cells.csv"


def is_report(folder: Path) -> bool:
    """Whether a folder is one that `ablations.report` wrote, with scores."""
    return is_file(folder / CELLS) and is_file(folder / raw_scores.FILE)


def reported_cells(folder: Path, settings_of: Mapping[str, Mapping[str, Scalar]]) -> list[FinishedCell]:
    """The finished cells of a report's first section whose arm `settings_of` has: a report names arms, and only the config knows what
    one is. They have scores, no texts, checks or times. Raises UserError where there are none, and for a table that cannot be read.
    """
    try:
        listed = pd.read_csv(folder / CELLS, keep_default_na=False)
        listed = listed[listed.status == "finished"]
        scores = read_long_scores(folder / raw_scores.FILE, raw_scores.COLUMNS)
        first = listed[listed.section == listed.section.iloc[0]]
        by_cell = {f"{arm}/seed-{seed}": own for (arm, seed), own in scores.groupby(["arm", "seed"], observed=True)}
        rows = [row for row in first.itertuples() if row.cell in by_cell and row.cell.rpartition("/")[0] in settings_of]
        cells = [_cell(folder, row, by_cell[row.cell], settings_of) for row in rows]
    except (OSError, ValueError, KeyError, AttributeError, IndexError, TypeError) as error:
        raise UserError(f"{folder} cannot be read as a report ({one_line(error)}): make it again with ablations.report") from error
    if not cells:
        raise UserError(f"{folder} is a report on other arms than the sweep's: plan the sweep that it was made from")
    return cells


def _cell(folder: Path, row: tuple, scores: pd.DataFrame, settings_of: Mapping[str, Mapping[str, Scalar]]) -> FinishedCell:
    arm, _, seed = row.cell.rpartition("/")  # type: ignore[attr-defined]
    plain = scores.drop(columns=["arm", "seed"]).rename(columns={"prompt": "coarse"})
    plain = plain.astype({"coarse": str, "condition": str, "metric": str, "value": float}).reset_index(drop=True)
    return FinishedCell(
        folder=folder / row.cell,  # type: ignore[attr-defined]
        arm=arm,
        seed=int(seed.removeprefix("seed-")),
        profile=row.profile,  # type: ignore[attr-defined]
        settings={key: value for key, value in settings_of[arm].items() if KEYS[key].option.kind in ("train", "eval")},
        data_digest=row.data_digest,  # type: ignore[attr-defined]
        weights_digest=row.weights_digest,  # type: ignore[attr-defined]
        code_revision=row.code_revision,  # type: ignore[attr-defined]
        timings={},
        scores=plain,
    )

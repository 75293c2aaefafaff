"""Pictures of what was refined: a grid with a row per prompt, the prompt's own picture first, then its candidates'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ablations.config.scope import TINY_WORLD_NOTE
from ablations.figures.diversity_grid import GridRow, draw_grid
from ablations.runtime.files import whole_file

if TYPE_CHECKING:
    from ablations.refiner.candidates import RefinedPrompt
    from ablations.refiner.prompt_refiner import PromptRefiner

# A grid of more rows is too tall to be looked at, and for most viewers.
ROWS_PER_PAGE = 12


def grid_row(refiner: PromptRefiner, candidates: Sequence[RefinedPrompt]) -> GridRow:
    """The row of one prompt's candidates, each drawn at its own image seed, the prompt at that of the first."""
    coarse = candidates[0].coarse
    texts = [coarse, *(candidate.refined for candidate in candidates)]
    seeds = [candidates[0].image_seed, *(candidate.image_seed for candidate in candidates)]
    coarse_image, *images = (np.asarray(picture) for picture in refiner.draw(texts, seeds))
    return GridRow(coarse, coarse_image, list(zip(texts[1:], images, strict=True)))


class GridPages:
    """Rows in the order in which they come, on as many pages as they need: FILE.png, FILE-2.png, ... A page is written when it is full."""

    def __init__(self, refiner: PromptRefiner, path: Path, title: str, rows_per_page: int = ROWS_PER_PAGE):
        self._refiner, self._path, self._title, self._rows_per_page = refiner, path, title, rows_per_page
        self._rows: list[GridRow] = []
        self._written: list[Path] = []

    @property
    def written(self) -> list[Path]:
        """The pages that are there."""
        return list(self._written)

    def add(self, candidates: Sequence[RefinedPrompt]) -> Path:
        """Draw a prompt's candidates; returns the page that will hold them. Raises RunFolderError where it cannot be written."""
        page = self._page()
        self._rows.append(grid_row(self._refiner, candidates))
        if len(self._rows) == self._rows_per_page:
            self.finish()
        return page

    def finish(self) -> None:
        """Write the page that is not full, if there is one."""
        if self._rows:
            page = self._page()
            write_grid(self._refiner, self._rows, page, self._title)
            self._written.append(page)
            self._rows = []

    def _page(self) -> Path:
        number = len(self._written) + 1
        return self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")


def write_grid(refiner: PromptRefiner, rows: Sequence[GridRow], path: Path, title: str) -> None:
    """Write a grid, whole or not at all. Raises RunFolderError where it cannot be written."""
    note = TINY_WORLD_NOTE if refiner.config.profile == "tiny" else ""
    with whole_file(path) as aside:
        draw_grid(rows, aside, title, note)

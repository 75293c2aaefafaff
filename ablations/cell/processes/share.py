"""A process's share of the evaluation prompts, and the files through which shares come together.

Prompts are shared out one by one, with all their candidates and conditions: candidates are compared with one another, and rank r takes
every n-th. What each process made of its own lies in RUN_FOLDER/shares until the cell is finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.files import write_atomically

FOLDER = "shares"
# All drawings, in order, once they are known.
ALL = "drawings.jsonl"


class Share(NamedTuple):
    """Which of `count` processes this one is."""

    rank: int = 0
    count: int = 1

    def has(self, position: int) -> bool:
        """Whether the prompt at this place is its own."""
        return position % self.count == self.rank

    def of(self, drawings: Sequence[Drawing]) -> list[Drawing]:
        """The drawings of its own prompts, in order; prompts count in the order in which the drawings have them."""
        places = {prompt_id: place for place, prompt_id in enumerate(dict.fromkeys(drawing.prompt_id for drawing in drawings))}
        return [drawing for drawing in drawings if self.has(places[drawing.prompt_id])]


# One process has it all.
ALONE = Share()


def refined_file(run_folder: Path, rank: int) -> Path:
    """What a process refined."""
    return run_folder / FOLDER / f"refined-{rank}.jsonl"


def scores_file(run_folder: Path, rank: int) -> Path:
    """What a process scored; the rows of metrics of whole conditions lie beside it as .npz."""
    return run_folder / FOLDER / f"scores-{rank}.parquet"


def write_drawings(path: Path, drawings: Iterable[Drawing]) -> None:
    """Whole, a line each."""
    write_atomically(path, "".join(json.dumps(asdict(drawing), ensure_ascii=False) + "\n" for drawing in drawings))


def read_drawings(path: Path) -> list[Drawing]:
    """What `write_drawings` wrote: by this cell, in this run."""
    return [Drawing(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]

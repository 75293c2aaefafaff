"""What the cells of a sweep take, learnt from those that have ended here: a training, a picture, and the rest of a cell.

A mean over cells would say nonsense: the first ones of a table draw ten times as many pictures as the last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from ablations.sweeping.cell import Cell
from ablations.sweeping.dispatcher import is_trained
from ablations.sweeping.forecast import picture_groups

_OF_TRAINING, _OF_PICTURES = ("training", "checks"), ("drawing", "scoring")


class Pace:
    """Seconds of trainings, of pictures and of everything else."""

    def __init__(self) -> None:
        self._trainings: list[float] = []
        self._pictures, self._of_pictures = 0, 0.0
        self._rest: list[float] = []
        self._groups: dict[int, dict[tuple, int]] = {}

    def note(self, cell: Cell, seconds: float) -> None:
        """Learn from a finished cell, by what its run.json says."""
        run = cell.folder.read() or {}
        timings, reused = run.get("timings") or {}, run.get("reused") or {}
        training, pictures = (sum(timings.get(part, 0.0) for part in parts) for parts in (_OF_TRAINING, _OF_PICTURES))
        if not reused.get("training"):
            self._trainings.append(training)
        self._pictures += max(0, sum(self._groups_of(cell).values()) - int(reused.get("pictures", 0)))
        self._of_pictures += pictures
        self._rest.append(max(0.0, seconds - training - pictures))

    def seconds_of(self, left: Sequence[Cell], ended: Collection[Cell], unknown: int = 0) -> float | None:
        """What the cells that are left take, one after the other; None where nothing was learnt.

        Pictures that they share with those that have `ended`, or with one another, are drawn once. Of a search `unknown` cells have not
        been asked for: each counts like a cell with a training and pictures of its own.
        """
        if not self._rest:
            return None
        rest = sum(self._rest) / len(self._rest)
        training = sum(self._trainings) / len(self._trainings) if self._trainings else 0.0
        picture = self._of_pictures / self._pictures if self._pictures else 0.0
        drawn = {group for cell in ended for group in self._groups_of(cell)}
        trained: set[Path] = set()
        seconds = unknown * (rest + training + picture * self._pictures / len(self._rest))
        for cell in left:
            groups = self._groups_of(cell)
            seconds += rest + picture * sum(count for group, count in groups.items() if group not in drawn)
            if not is_trained(cell) and cell.folder.training_path not in trained:
                seconds += training
            trained.add(cell.folder.training_path)
            drawn |= set(groups)
        return seconds

    def _groups_of(self, cell: Cell) -> dict[tuple, int]:
        if cell.number not in self._groups:
            self._groups[cell.number] = picture_groups(cell.config)
        return self._groups[cell.number]

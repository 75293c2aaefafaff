"""Which cell a process of a sweep takes next. All that it knows lies in the run folders, so any number of sweeps may share them.

A cell belongs to whoever holds its lock. Cells that other processes run are left to them and looked at again: they may end well, fail,
or be abandoned, in which case they are taken up here. No training is waited for while there is something else to do.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol

from ablations.results.checkpoints import FINAL
from ablations.runtime.errors import RunFolderError
from ablations.sweeping.cell import Cell


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a cell ended: "finished", "failed" with a reason of one line, or "busy" where another process had it."""

    status: str
    reason: str = ""
    seconds: float = 0.0


class Cells(Protocol):
    """A grid or a search: the cells known until now, how many there are to be, and a way to ask for one more.

    `distinct` are the cells each once, where a search has drawn one again; `repeats` says how many there are, "" where that is all.
    """

    cells: list[Cell]
    total: int

    @property
    def distinct(self) -> list[Cell]: ...

    @property
    def repeats(self) -> str: ...

    def ask(self) -> Cell | None: ...


@dataclass
class _State:
    """What is known of a cell. `status`: open, here (a worker of ours has it), elsewhere, finished or failed."""

    status: str = "open"
    reason: str = ""
    ended_by: str = ""  # before (this sweep was started), here or elsewhere
    written_before: int = -1  # run.json's time of change when this sweep was started: a failure from then is tried again


class Dispatcher:
    """Hands out the cells of a sweep, each to one worker at a time, and keeps account of how they end.

    A cell that failed before this sweep was started is tried again, once; one that fails from then on, here or in another process, is
    not.
    """

    def __init__(self, cells: Cells):
        self._cells = cells
        # By folder: a search may draw a cell again, which is then the same cell.
        self._states: dict[str, _State] = {}
        for cell in cells.cells:
            self._state_of(cell).written_before = _written(cell)
            self._look_at(cell, "before")

    def next(self) -> Cell | None:
        """A cell for a free worker, which is then counted as here; None where there is none at the moment."""
        free = [cell for cell in self._cells.cells if self._look_at(cell) == "open"]
        trained_now = {
            cell.folder.training_path
            for cell in self._cells.cells
            if self._state_of(cell).status in ("here", "elsewhere") and not is_trained(cell)
        }
        ready = [cell for cell in free if is_trained(cell) or cell.folder.training_path not in trained_now]
        if not ready and not free:
            ready = self._asked()
        if not ready:
            return None
        # Cells of one seed share pictures: side by side they would both draw them.
        seeds = {cell.config.seed for cell in self._cells.cells if self._state_of(cell).status == "here"}
        chosen = next((cell for cell in ready if cell.config.seed not in seeds), ready[0])
        self._state_of(chosen).status = "here"
        return chosen

    def _asked(self) -> list[Cell]:
        """A further cell that is to be run, where there is one; draws of cells that have ended, or that are run now, are ended by that."""
        while (cell := self._cells.ask()) is not None:
            if self._look_at(cell) == "open":
                return [cell]
        return []

    def ended(self, cell: Cell, outcome: Outcome) -> None:
        """Take note of how a cell ended that `next` handed out."""
        state = self._state_of(cell)
        if outcome.status == "busy":
            state.status = "elsewhere"
        else:
            state.status, state.reason, state.ended_by = outcome.status, outcome.reason, "here"

    @property
    def is_done(self) -> bool:
        """Whether every cell has ended, and none is to come."""
        return self.num_ended >= self._cells.total

    @property
    def num_ended(self) -> int:
        """How many cells have ended, well or not; one that was drawn twice counts twice."""
        return sum(self._state_of(cell).status in ("finished", "failed") for cell in self._cells.cells)

    def count(self, status: str, ended_by: str | None = None) -> int:
        """How many different cells are in a status, or ended in it by whom: before, here or elsewhere."""
        return sum(state.status == status and ended_by in (None, state.ended_by) for state in self._states.values())

    @property
    def total(self) -> int:
        return self._cells.total

    def failures(self) -> list[tuple[Cell, str]]:
        """The cells that failed, with the reason."""
        return [(cell, self._state_of(cell).reason) for cell in self._cells.distinct if self._state_of(cell).status == "failed"]

    def not_ended(self) -> list[Cell]:
        """The known cells that have neither finished nor failed."""
        return [cell for cell in self._cells.distinct if self._state_of(cell).status not in ("finished", "failed")]

    def _state_of(self, cell: Cell) -> _State:
        return self._states.setdefault(str(cell.folder), _State())

    def _look_at(self, cell: Cell, ended_by: str = "elsewhere") -> str:
        """The cell's status, brought up to date from its folder unless it ended already or is here."""
        state = self._state_of(cell)
        if state.status in ("here", "finished", "failed"):
            return state.status
        try:
            found = cell.folder.status()
        except RunFolderError as error:  # the folder holds another config's results
            state.status, state.ended_by, state.reason = "failed", "here", str(error)
            return state.status
        if found == "finished":
            state.status, state.ended_by = "finished", ended_by
        elif found == "failed" and state.written_before != _written(cell):
            run = cell.folder.read()
            state.status, state.ended_by, state.reason = "failed", ended_by, str((run or {}).get("reason", ""))
        else:
            state.status = "elsewhere" if found == "running" else "open"
        return state.status


def is_trained(cell: Cell) -> bool:
    """Whether the cell's training is finished, by whichever cell."""
    return (cell.folder.checkpoints / FINAL).exists()


def _written(cell: Cell) -> int:
    try:
        return os.stat(cell.folder.run_json).st_mtime_ns
    except FileNotFoundError:
        return 0

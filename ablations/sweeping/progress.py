"""What a sweep says while it runs: a line when a cell begins and ends, a bar over the cells on a terminal, and the time left."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from rich.progress import Progress
from rich.table import Table

from ablations.config.parsing import show
from ablations.runtime.console import Console
from ablations.runtime.files import write_atomically, write_json
from ablations.sweeping.cell import Cell
from ablations.sweeping.dispatcher import Cells, Dispatcher, Outcome, is_trained
from ablations.sweeping.pace import Pace
from ablations.sweeping.sweep_file import SweepFile
from datamodules.progress import duration

T = TypeVar("T")


class RelayConsole(Console):
    """A cell's console within a sweep: hands its lines on, and prints no tables and no bars of its own."""

    def __init__(self, relay: Callable[[str], None]):
        super().__init__("plain")
        self._relay = relay

    def say(self, text: str) -> None:
        self._relay(text)

    def table(self, table: Table) -> None:
        """The report compares cells; a table of each would drown the progress."""


class SweepProgress:
    """Shows a sweep and records it in the sweep's folder: sweep.json says what it is, session-*.json what this process did.

    `verbose` shows the cells' own lines too.
    """

    def __init__(self, console: Console, sweep: SweepFile, cells: Cells, folder: Path, jobs: int, verbose: bool = False):
        self._console, self._sweep, self._cells, self._folder, self._jobs, self._verbose = console, sweep, cells, folder, jobs, verbose
        self._dispatcher: Dispatcher | None = None
        self._pace = Pace()
        self._recorded = -1
        self._is_waiting = False
        self._bar: Progress | None = None
        self._started = time.monotonic()
        now = datetime.now(UTC)
        self._session_path = folder / f"session-{now:%Y%m%dT%H%M%S}-{socket.gethostname()}-{os.getpid()}.json"
        self._session: dict[str, Any] = {
            "started": now.isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "jobs": jobs,
            "seconds": 0.0,
            "cells": {},
        }

    def open(self, dispatcher: Dispatcher) -> None:
        """Say what there is to do."""
        self._dispatcher = dispatcher
        done = dispatcher.count("finished")
        self.say(f"sweep {self._sweep.name}: {dispatcher.total} cells, {done} of them finished already, in {self._folder}")
        self._record()
        if self._console.mode == "bar":
            self._bar = self._console.progress()
            self._bar.start()
            self._task = self._bar.add_task("cells", total=dispatcher.total, completed=done, note="")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        """A line of the sweep's own, above the bar where there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        else:
            self._console.say(text)

    def relay(self, text: str) -> None:
        """A line of a cell's."""
        if self._verbose:
            self.say(f"  {text}")
        elif self._bar is not None:
            self._bar.update(self._task, note=text[:60])

    def waiting(self) -> None:
        """Say, once in a row, that all that is left is being run by other processes."""
        assert self._dispatcher is not None
        if not self._is_waiting:
            self._is_waiting = True
            count = self._dispatcher.count("elsewhere")
            self.say(f"waiting for {count} cells that other processes are running" if count else "waiting for other processes")
        self._advance()

    def begins(self, cell: Cell) -> None:
        self._is_waiting = False
        self._record()
        self.say(f"{self._position(cell)} begins: {cell.label or cell.folder}{' (training shared)' if is_trained(cell) else ''}")

    def ended(self, cell: Cell, outcome: Outcome, details: str) -> None:
        """Say how a cell ended. `details`, a traceback, goes to a file in the sweep's folder."""
        if outcome.status == "busy":
            self.say(f"{self._position(cell)} is being run by another process")
            return
        self._session["cells"][str(cell.folder)] = {"status": outcome.status, "seconds": round(outcome.seconds, 3)}
        self._record()
        if outcome.status == "failed":
            self.say(f"{self._position(cell)} FAILED: {cell.folder}: {outcome.reason}")
            if details:
                path = self._folder / "failures" / f"{cell.folder.arm}-seed-{cell.folder.seed}.txt"
                write_atomically(path, details)
                self.say(f"  traceback: {path}")
        else:
            self._pace.note(cell, outcome.seconds)
            left = self._seconds_left()
            note = f"; about {duration(left)} left" if left else ""
            self.say(f"{self._position(cell)} finished in {duration(outcome.seconds)}: {cell.folder}{_sharing(cell)}{note}")
            if _lacks_metric(self._sweep, cell):
                lacks = f"has no {self._sweep.metric}{_what_has_it(self._sweep, cell)}"
                self.say(f"{self._position(cell)} {lacks}: to the search it is a trial that failed")
        self._advance()

    def _position(self, cell: Cell) -> str:
        return f"[{cell.number + 1}/{self._cells.total}]"

    def _advance(self) -> None:
        if self._bar is not None and self._dispatcher is not None:
            self._bar.update(self._task, completed=self._dispatcher.num_ended)

    def _seconds_left(self) -> float | None:
        assert self._dispatcher is not None
        left = self._dispatcher.not_ended()
        numbers = {cell.number for cell in left}
        ended = [cell for cell in self._cells.distinct if cell.number not in numbers]
        unknown = self._cells.total - len(self._cells.cells)
        seconds = self._pace.seconds_of(left, ended, unknown)
        return None if seconds is None else seconds / self._jobs

    def _record(self) -> None:
        self._session["seconds"] = round(time.monotonic() - self._started, 3)
        write_json(self._session_path, self._session)
        if len(self._cells.cells) != self._recorded:
            self._recorded = len(self._cells.cells)
            write_json(self._folder / "sweep.json", self._description())

    def _description(self) -> dict[str, Any]:
        sweep = self._sweep
        return {
            "name": sweep.name,
            "method": sweep.method,
            "metric": sweep.metric,
            "goal": sweep.goal if sweep.metric else None,
            "swept": [parameter.name for parameter in sweep.parameters],
            "total": self._cells.total,
            "cells": [
                {"arm": cell.folder.arm, "seed": cell.folder.seed, "swept": {name: value for name, value in cell.swept.items()}}
                for cell in self._cells.cells
            ],
        }


def _sharing(cell: Cell) -> str:
    """What a finished cell did not have to make, in words."""
    reused = (cell.folder.read() or {}).get("reused") or {}
    parts = ["training"] if reused.get("training") else []
    parts += [f"{reused[name]} {name}" for name in ("pictures", "scores") if reused.get(name)]
    return f", shared: {', '.join(parts)}" if parts else ""


def summary_lines(sweep: SweepFile, cells: Cells, dispatcher: Dispatcher) -> Iterator[str]:
    """The last lines of a sweep: how many cells ended how, the failures with their reasons, and what to do next."""
    if cells.repeats:
        yield cells.repeats
    finished = dispatcher.count("finished")
    sources = [(dispatcher.count("finished", by), f"{by}") for by in ("before", "here", "elsewhere")]
    words = {"before": "before", "here": "now", "elsewhere": "by other processes"}
    how = ", ".join(f"{count} {words[by]}" for count, by in sources if count)
    num_cells = len(cells.distinct) if len(cells.cells) >= cells.total else cells.total
    yield f"{finished} of {num_cells} cells finished" + (f" ({how})" if how else "")
    for cell, reason in dispatcher.failures():
        yield f"failed: {cell.folder} ({cell.label}): {reason}"
    if lacking := [cell for cell in cells.distinct if _lacks_metric(sweep, cell)]:
        hint = next(filter(None, (_what_has_it(sweep, cell) for cell in lacking)), "")
        yield f"{len(lacking)} finished without {sweep.metric}{hint}, to the search they are trials that failed; first: {lacking[0].label}"
    if best := _best(sweep, cells.distinct):
        yield best


def _lacks_metric(sweep: SweepFile, cell: Cell) -> bool:
    """Whether a cell of a search has finished without the metric that the search is steered by."""
    if sweep.method == "grid" or sweep.metric is None or not cell.folder.is_finished():
        return False
    from ablations.sweeping.search import metric_of

    return metric_of(sweep, cell) is None


def _what_has_it(sweep: SweepFile, cell: Cell) -> str:
    """The remedy where a cell lacks a metric of pictures because no table reads it of this arm, so that too few were drawn."""
    e, is_of_training = cell.config.eval, (sweep.metric or "").startswith(("train/", "val/"))
    was_spared = e.draw == "read" and e.num_prompts and e.num_candidates > 1 and not is_of_training
    return " (eval.draw=all draws all candidates of every arm)" if was_spared else ""


def _best(sweep: SweepFile, cells: Iterable[Cell]) -> str:
    """The best cell of a search so far."""
    if sweep.method == "grid" or sweep.metric is None:
        return ""
    from ablations.sweeping.search import metric_of

    found = [(value, cell) for cell in cells if (value := metric_of(sweep, cell)) is not None]
    if not found:
        return ""
    value, cell = (max if sweep.goal == "maximize" else min)(found, key=lambda pair: pair[0])
    return f"best {sweep.metric}: {show(float(f'{value:.4g}'))} with {cell.label} ({cell.folder}); the best of many looks better than it is"

"""The cells of a sweep: a grid is expanded at once, a search asks for one after the other.

A search keeps what it asked for in OUTPUT_DIR/sweeps/NAME/trials.json, and reads how it ended from the cells' own run.json. So it goes on
after a kill, and on several machines, with nothing else to keep in step. Imports no heavy library; Optuna is imported by the first draw.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ablations.config import Config, parse
from ablations.config.parsing import Scalar, show
from ablations.config.parsing import logger as parsing_logger
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import write_json
from ablations.sweeping.cell import Cell
from ablations.sweeping.sweep_file import SweepFile, digest_of

# So many combinations of a search's lists and range ends are tried out beforehand.
_MOST_CORNERS = 256


class Grid:
    """Every combination of a grid's values, last key fastest, as W&B orders them. Raises UserError naming an impossible one.

    `folder` is the sweep's own folder; `num_repeated` combinations are the same cell as an earlier one.
    """

    def __init__(self, sweep: SweepFile):
        names = [parameter.name for parameter in sweep.parameters]
        with _warned_once() as cells:
            for values in itertools.islice(itertools.product(*(p.values for p in sweep.parameters)), sweep.run_cap):
                cells.append(_cell(sweep, len(cells), dict(zip(names, values, strict=True))))
        distinct = {str(cell.folder): cell for cell in reversed(cells)}
        self.num_repeated = len(cells) - len(distinct)
        self.cells = sorted(distinct.values(), key=lambda cell: cell.number)
        self.total = len(self.cells)
        self.example = cells[0].config
        self.folder = _folder(sweep, self.example, sweep.run_cap)

    def ask(self) -> None:
        """A grid has no cells but those that it had from the start."""


class Search:
    """A random or bayes search of `total` cells; `cells` are those that were asked for until now, here or by other processes.

    Cell n is drawn by a sampler seeded with (search_seed, n) that knows the results which are there when it is asked for: one process
    makes the same search again, also after a kill; several learn from what the others have finished by then. `example` is a possible
    cell, for forecasts.
    """

    num_repeated = 0

    def __init__(self, sweep: SweepFile, total: int, search_seed: int = 0):
        self.total = total
        self.cells: list[Cell] = []
        self._sweep, self._seed = sweep, search_seed
        self.example = self._first_corner()
        self.folder = _folder(sweep, self.example, search_seed)
        self._read()

    def _first_corner(self) -> Config:
        """The first cell of lists and range ends; raises UserError where one of those cells is impossible."""
        names = [parameter.name for parameter in self._sweep.parameters]
        choices = [p.values or (p.range.low, p.range.high) for p in self._sweep.parameters if p.values or p.range]
        corners = itertools.islice(itertools.product(*choices), _MOST_CORNERS)
        with _warned_once() as cells:
            for values in corners:
                cells.append(_cell(self._sweep, len(cells), dict(zip(names, values, strict=True))))
        return cells[0].config

    @property
    def _path(self) -> Path:
        return self.folder / "trials.json"

    def ask(self) -> Cell | None:
        """The next cell, or None where another process has just asked for one, or where all have been asked for."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".trials.lock"):
            known = len(self.cells)
            self._read()
            if len(self.cells) > known or known >= self.total:
                return None
            from ablations.sweeping.search import next_values

            values = next_values(self._sweep, self.cells, self._seed)
            write_json(self._path, [*(cell.swept for cell in self.cells), values])
        self._read()
        return self.cells[-1]

    def _read(self) -> None:
        """Takes over the cells that were asked for, here or by other processes."""
        try:
            trials = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return
        except ValueError as error:
            raise RunFolderError(f"{self._path} cannot be read ({error}): delete it to begin the search again") from error
        with _warned_once():
            self.cells += [_cell(self._sweep, number, trials[number]) for number in range(len(self.cells), len(trials))]


def cells_of(sweep: SweepFile, count: int | None = None, search_seed: int = 0) -> Grid | Search:
    """The cells of a sweep. Raises UserError for an impossible combination of values, and for a search without an end."""
    if sweep.method == "grid":
        if count is not None:
            raise UserError(f"{sweep.path}: --count is for method random and bayes; a grid has as many cells as its values give")
        return Grid(sweep)
    total = count if count is not None else sweep.run_cap
    if total is None:
        raise UserError(f"{sweep.path}: method {sweep.method} has no end: add run_cap: 20 to the file, or say --count 20")
    return Search(sweep, total, search_seed)


def _cell(sweep: SweepFile, number: int, values: Mapping[str, Scalar]) -> Cell:
    try:
        config = parse([f"{name}={show(value)}" for name, value in {**sweep.fixed, **values}.items()])
    except UserError as error:
        label = " ".join(f"{name}={show(value)}" for name, value in values.items())
        raise UserError(f"{sweep.path}: cell {number + 1} ({label}): {error}" if label else f"{sweep.path}: {error}") from None
    return Cell(number, config, RunFolder(config), dict(values))


def _folder(sweep: SweepFile, config: Config, *further: object) -> Path:
    return Path(config.output_dir) / "sweeps" / f"{sweep.name}-{digest_of(sweep, *further)}"


@contextmanager
def _warned_once() -> Iterator[list[Cell]]:
    """Within the block, warnings about keys without effect are held back; afterwards those that every cell of the list gave are said.

    A key without effect in some of the cells is what an ablation is.
    """
    cells: list[Cell] = []
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        held.append(record)
        return False

    parsing_logger.addFilter(hold)
    try:
        yield cells
    finally:
        parsing_logger.removeFilter(hold)
    counts = Counter(record.getMessage() for record in held)
    for message in (message for message, count in counts.items() if cells and count == len(cells)):
        parsing_logger.warning("%s", message)

"""The cells of a sweep: a grid is expanded at once, a search asks for one after the other.

A search keeps what it asked for in OUTPUT_DIR/sweeps/NAME/trials.json, and reads how it ended from the cells' own run.json. So it goes on
after a kill, and on several machines, with nothing else to keep in step. Imports no heavy library; Optuna is imported by the first draw.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ablations.config import Config
from ablations.config.config import config_maker
from ablations.config.parsing import Scalar, show
from ablations.config.parsing import logger as parsing_logger
from ablations.results.run_folder import RunFolder
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import write_json
from ablations.runtime.foreign import Unreadable, read_json
from ablations.sweeping.cell import Cell
from ablations.sweeping.sweep_file import MOST_CELLS, SweepFile, digest_of

# So many combinations of a search's lists and range ends are tried out beforehand.
_MOST_CORNERS = 256


class Grid:
    """Every combination of a grid's values, last key fastest, as W&B orders them. Raises UserError naming an impossible one.

    `folder` is the sweep's own folder; `num_repeated` combinations are the same cell as an earlier one.
    """

    def __init__(self, sweep: SweepFile):
        names = [parameter.name for parameter in sweep.parameters]
        count = math.prod(len(parameter.values) for parameter in sweep.parameters)
        if min(count, sweep.run_cap or count) > MOST_CELLS:
            raise UserError(
                f"{sweep.path}: a grid of {count:,} cells; at most {MOST_CELLS:,} can be run: sweep fewer values, or set run_cap"
            )
        made = _Cells(sweep)
        with _warned_once() as cells:
            for values in itertools.islice(itertools.product(*(p.values for p in sweep.parameters)), sweep.run_cap):
                cells.append(made.cell(len(cells), dict(zip(names, values, strict=True))))
        distinct = {str(cell.folder): cell for cell in reversed(cells)}
        self.num_repeated = len(cells) - len(distinct)
        self.cells = sorted(distinct.values(), key=lambda cell: cell.number)
        self.total = len(self.cells)
        self.example = cells[0].config
        self.folder = _folder(sweep, self.example, sweep.run_cap)
        _require_metric(sweep, [cell.config for cell in self.cells[:: max(1, self.total // _MOST_CORNERS)]])

    @property
    def distinct(self) -> list[Cell]:
        """The cells, each once."""
        return self.cells

    @property
    def repeats(self) -> str:
        """What is to be said of cells that come more than once; "" where there are none."""
        return f"{self.num_repeated} combinations are the same cell as another one and run once" if self.num_repeated else ""

    def ask(self) -> None:
        """A grid has no cells but those that it had from the start."""


class Search:
    """A random or bayes search of `total` cells; `cells` are those that were asked for until now, here or by other processes.

    Cell n is drawn by a sampler seeded with (search_seed, n) that knows the results which are there when it is asked for: one process
    makes the same search again, also after a kill; several learn from what the others have finished by then. A draw may repeat an earlier
    one: it is the same cell, and counts as a draw that has ended when that has. `example` is a possible cell, for forecasts.
    """

    def __init__(self, sweep: SweepFile, total: int, search_seed: int = 0):
        self.total = total
        self.cells: list[Cell] = []
        self._sweep, self._seed, self._made = sweep, search_seed, _Cells(sweep)
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
                cells.append(self._made.cell(len(cells), dict(zip(names, values, strict=True))))
        _require_metric(self._sweep, [cell.config for cell in cells])
        return cells[0].config

    @property
    def distinct(self) -> list[Cell]:
        """The cells, each once, as it was drawn first."""
        first: dict[str, Cell] = {}
        for cell in self.cells:
            first.setdefault(str(cell.folder), cell)
        return list(first.values())

    @property
    def repeats(self) -> str:
        """What is to be said of cells that come more than once; "" where there are none."""
        distinct = len(self.distinct)
        return f"{distinct} different cells of {len(self.cells)} draws" if distinct < len(self.cells) else ""

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
            trials = read_json(self._path, list)
            if not all(isinstance(values, dict) for values in trials):
                raise Unreadable("it is no list of cells")
        except FileNotFoundError:
            return
        except Unreadable as error:
            raise RunFolderError(f"{self._path} cannot be read ({error}): delete it to begin the search again") from error
        with _warned_once():
            self.cells += [self._made.cell(number, trials[number]) for number in range(len(self.cells), len(trials))]


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


class _Cells:
    """Makes the cells of a sweep; what they have in common is read once."""

    def __init__(self, sweep: SweepFile):
        self._sweep = sweep
        try:
            self._config_with = config_maker([f"{name}={show(value)}" for name, value in sweep.fixed.items()])
        except UserError as error:
            raise UserError(f"{sweep.path}: {error}") from None

    def cell(self, number: int, values: Mapping[str, Scalar]) -> Cell:
        """The cell with these values of the swept keys. Raises UserError, naming the cell, where they are impossible."""
        try:
            config = self._config_with(values)
        except UserError as error:
            label = " ".join(f"{name}={show(value)}" for name, value in values.items())
            raise UserError(
                f"{self._sweep.path}: cell {number + 1} ({label}): {error}" if label else f"{self._sweep.path}: {error}"
            ) from None
        return Cell(number, config, RunFolder(config), dict(values))


def _require_metric(sweep: SweepFile, configs: Iterable[Config]) -> None:
    """Raises UserError, with the nearest name, where no cell of the sweep can have the metric that it is steered by.

    A grid is steered by none: what W&B alone shows may stand in its file, and it may be trained without being evaluated.
    """
    from ablations.results.logged import TRAIN, VALIDATION, is_for_wandb_alone, may_be_logged

    name = sweep.metric
    if name is None or (sweep.method == "grid" and is_for_wandb_alone(name)):
        return
    if is_for_wandb_alone(name):
        raise UserError(f"{sweep.path}: {name} is shown by W&B and kept nowhere: it says how fast a machine is; take a metric of the cells")
    known: set[str] = set()
    for config in configs:
        if sweep.method == "grid":  # it needs no value of it: what a key alone keeps from being measured may be named all the same
            config = dataclasses.replace(
                config,
                eval=dataclasses.replace(config.eval, num_prompts=config.eval.num_prompts or 1),
                train=dataclasses.replace(config.train, check_records=config.train.check_records or 1),
            )
        known |= (own := may_be_logged(config))
        # What the loss terms of plug-ins log is not known before.
        if name in own or (config.plugins and name.startswith((TRAIN, VALIDATION))):
            return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    hint = "" if any(known_name.startswith("n/") for known_name in known) else "; eval.num_prompts=0 leaves those of the training"
    raise UserError(f"{sweep.path}: cells have no metric {name!r}; the nearest is {near[0]!r}{hint}")


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

"""A plan on the screen: cells, what is there already, and the time of the rest."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.runtime.foreign import is_there
from ablations.sweeping.costs import UNDISTURBED
from ablations.sweeping.dispatcher import is_trained
from datamodules.progress import duration

if TYPE_CHECKING:
    from rich.table import Table

    from ablations.runtime.console import Console
    from ablations.sweeping.cell import Cell
    from ablations.sweeping.cells import Grid, Search
    from ablations.sweeping.forecast import CellForecast

# Arms that the table lists, and seeds of one: a grid of ten thousand cells is read by nobody.
MOST_ARMS, _MOST_SEEDS = 100, 20


def show_plan(
    cells: Grid | Search, finished: Set[int], forecasts: Mapping[str, CellForecast], totals: Mapping[str, Any], console: Console
) -> None:
    """The arms as a table, then what is to be done, then time and disk. `finished` are the numbers of the cells that have."""
    console.table(_arms_table(cells, finished, forecasts, bool(totals)))
    num_arms = len({cell.folder.arm for cell in cells.distinct})
    if num_arms > MOST_ARMS:
        console.say(f"... and {num_arms - MOST_ARMS} further arms")
    unknown = cells.total - len(cells.cells)
    not_drawn = f", {unknown} of them not drawn yet" if unknown else ""
    console.say(f"{cells.total} cells: {len(finished)} finished, {cells.total - len(finished)} to do{not_drawn}")
    if cells.repeats:
        console.say(cells.repeats)
    console.say(_trainings(cells, unknown))
    if totals:
        _show_totals(cells, totals, console)


def _arms_table(cells: Grid | Search, finished: Set[int], forecasts: Mapping[str, CellForecast], has_times: bool) -> Table:
    """A row an arm; of very many the first ones."""
    from rich.table import Table

    from ablations.config.parsing import show

    arms: dict[str, list[Cell]] = {}
    for cell in cells.distinct:
        arms.setdefault(cell.folder.arm, []).append(cell)
    titles = ["arm", "what it is", "seeds", "finished", "training", *(["time", "new pictures"] if has_times else [])]
    table = Table(*titles, title=f"{cells.folder.name}: {cells.total} cells", title_justify="left")
    first_with: dict[Path, str] = {}
    for arm, members in itertools.islice(arms.items(), MOST_ARMS):
        swept = " ".join(f"{name}={show(value)}" for name, value in members[0].swept.items() if name != "seed")
        owner = first_with.setdefault(members[0].folder.training_path.parent, arm)
        ready = sum(is_trained(cell) for cell in members)
        of_training = "there" if ready == len(members) else f"{ready} of {len(members)} there" if ready else "to do"
        of_training = of_training if owner == arm else "shared"
        row = [arm, swept, _seeds([cell.config.seed for cell in members])]
        row += [str(sum(cell.number in finished for cell in members)), of_training]
        if has_times:
            own = [forecasts[str(cell.folder)] for cell in members if str(cell.folder) in forecasts]
            seconds = sum(sum(each.seconds.values()) for each in own)
            row += [duration(seconds), str(sum(each.new_pictures for each in own))] if own else ["", ""]
        table.add_row(*row)
    return table


def _seeds(seeds: list[int]) -> str:
    shown = " ".join(map(str, seeds[:_MOST_SEEDS]))
    return shown if len(seeds) <= _MOST_SEEDS else f"{shown} ... {seeds[-1]} ({len(seeds)})"


def _trainings(cells: Grid | Search, unknown: int) -> str:
    """How many trainings there are; of a search, whose cells are not drawn yet, as many more as it may have at most."""
    ready = {cell.folder.training_path: is_trained(cell) for cell in cells.distinct}
    to_do = len(ready) - sum(ready.values())
    if unknown:
        return f"at most {len(ready) + unknown} trainings: {sum(ready.values())} finished, at most {to_do + unknown} to do"
    return f"{len(ready)} trainings: {sum(ready.values())} finished, {to_do} to do"


def _show_totals(cells: Grid | Search, totals: Mapping[str, Any], console: Console) -> None:
    console.say(f"at most {totals['new_pictures']} pictures to draw and score, of {totals['pictures']} that the cells to do show")
    parts = ", ".join(f"{part} {duration(seconds)}" for part, seconds in totals["parts"].items() if seconds >= 0.5)
    jobs = f"{totals['jobs']} processes" if totals["jobs"] > 1 else "one process"
    console.say(f"forecast: {duration(totals['seconds'])} with {jobs} on this machine" + (f" ({parts})" if parts else ""))
    if totals["processor_share"] < UNDISTURBED:
        share, idle = totals["processor_share"], duration(totals["seconds"] * totals["processor_share"])
        console.say(f"the machine is busy: while it was timed this process got {share:.0%} of its processors; idle, about {idle}")
    if totals["memory_bytes"]:
        console.say(f"GPU memory: {totals['memory_bytes'] / 1e9:.1f} GB at most, of each process's GPU")
    free = shutil.disk_usage(_existing(cells.folder)).free
    short = ": NOT ENOUGH, choose another output_dir" if totals["bytes"] > free else ""
    console.say(f"disk: {totals['bytes'] / 1e6:,.0f} MB, of {free / 1e6:,.0f} MB free{short}")


def _existing(folder: Path) -> Path:
    return folder if is_there(folder) else _existing(folder.absolute().parent)

"""A plan on the screen: cells, what is there already, and the time of the rest."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablations.sweeping.costs import UNDISTURBED
from datamodules.progress import duration

if TYPE_CHECKING:
    from ablations.runtime.console import Console
    from ablations.sweeping.cell import Cell
    from ablations.sweeping.cells import Grid, Search
    from ablations.sweeping.forecast import CellForecast


def show_plan(cells: Grid | Search, forecasts: Mapping[str, CellForecast], totals: Mapping[str, Any], console: Console) -> None:
    """The arms as a table, then what is to be done, then time and disk."""
    from rich.table import Table

    from ablations.config.parsing import show
    from ablations.sweeping.dispatcher import is_trained

    arms: dict[str, list[Cell]] = {}
    for cell in cells.cells:
        arms.setdefault(cell.folder.arm, []).append(cell)
    titles = ["arm", "what it is", "seeds", "finished", "training", *(["time", "new pictures"] if totals else [])]
    table = Table(*titles, title=f"{cells.folder.name}: {cells.total} cells", title_justify="left")
    first_with: dict[Path, str] = {}
    for arm, members in arms.items():
        swept = " ".join(f"{name}={show(value)}" for name, value in members[0].swept.items() if name != "seed")
        owner = first_with.setdefault(members[0].folder.training_path.parent, arm)
        ready = sum(is_trained(cell) for cell in members)
        of_training = "there" if ready == len(members) else f"{ready} of {len(members)} there" if ready else "to do"
        of_training = of_training if owner == arm else "shared"
        row = [arm, swept, " ".join(str(cell.config.seed) for cell in members)]
        row += [str(sum(cell.folder.is_finished() for cell in members)), of_training]
        if totals:
            own = [forecasts[str(cell.folder)] for cell in members if str(cell.folder) in forecasts]
            seconds = sum(sum(each.seconds.values()) for each in own)
            row += [duration(seconds), str(sum(each.new_pictures for each in own))] if own else ["", ""]
        table.add_row(*row)
    console.table(table)
    num_finished = sum(cell.folder.is_finished() for cell in cells.cells)
    trainings = {cell.folder.training_path: is_trained(cell) for cell in cells.cells}
    unknown = f", {cells.total - len(cells.cells)} of them not drawn yet" if cells.total > len(cells.cells) else ""
    console.say(f"{cells.total} cells: {num_finished} finished, {cells.total - num_finished} to do{unknown}")
    console.say(f"{len(trainings)} trainings: {sum(trainings.values())} finished, {len(trainings) - sum(trainings.values())} to do")
    if not totals:
        return
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
    return folder if folder.exists() else _existing(folder.absolute().parent)

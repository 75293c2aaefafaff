"""Running a sweep on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablations.cell.training.place import refuse_launcher
from ablations.results.registration import read_registration, register_folder
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from ablations.sweeping.arguments import read_cells
from ablations.sweeping.cells import Grid, Search


def run_sweep(arguments: argparse.Namespace, stop: StopRequest) -> int:
    """Run what is missing of a sweep, here or in `arguments.jobs` processes; returns 1 where a cell failed, else 0.

    Raises UserError for a mistake in the file or the arguments, and Preempted at a signal.
    """
    refuse_launcher()
    sweep, cells = read_cells(arguments)
    if arguments.registration:
        _register(arguments.registration, cells)
    from ablations.runtime.console import Console
    from ablations.sweeping.dispatcher import Dispatcher
    from ablations.sweeping.progress import SweepProgress, summary_lines
    from ablations.sweeping.workers import run_here, run_in_processes

    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    for name in sweep.without_effect:
        console.say(f"{sweep.path}: {name} is for W&B's server and has no effect here")
    if cells.num_repeated:
        console.say(f"{cells.num_repeated} combinations are the same cell as another one and run once")
    dispatcher = Dispatcher(cells)
    progress = SweepProgress(console, sweep, cells, cells.folder, arguments.jobs, verbose=arguments.verbose)
    progress.open(dispatcher)
    try:
        if arguments.jobs > 1:
            run_in_processes(dispatcher, progress, arguments.jobs)
        else:
            run_here(dispatcher, progress, stop)
    finally:
        progress.close()
    for line in summary_lines(sweep, cells, dispatcher):
        console.say(line)
    return 1 if dispatcher.count("failed") else 0


def _register(path: Path, cells: Grid | Search) -> None:
    """Copy a registration into the sweep's output folder. Raises UserError where it is not of these cells, or came too late."""
    if not isinstance(cells, Grid):
        raise UserError("--registration is for method grid: a search does not know its cells beforehand")
    names = [str(cell.folder) for cell in cells.cells]
    register_folder(Path(cells.example.output_dir), read_registration(path), names)

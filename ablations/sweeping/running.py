"""Running a sweep on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from ablations.cell.processes.place import refuse_launcher
from ablations.results.registration import read_registration, register_folder
from ablations.results.wandb_settings import forget_the_agents_run
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from ablations.sweeping.arguments import read_cells
from ablations.sweeping.cells import Grid, Search
from ablations.sweeping.gpus import gpus_of, jobs_for, uses_gpus, visible_gpus


def run_sweep(arguments: argparse.Namespace, stop: StopRequest) -> int:
    """Run what is missing of a sweep, here or in several processes; returns 1 where a cell failed, else 0.

    Raises UserError for a mistake in the file or the arguments, and Preempted at a signal.
    """
    refuse_launcher()
    forget_the_agents_run()
    sweep, cells = read_cells(arguments)
    if arguments.registration:
        _register(arguments.registration, cells)
    from ablations.runtime.console import Console
    from ablations.sweeping.dispatcher import Dispatcher
    from ablations.sweeping.progress import SweepProgress, summary_lines
    from ablations.sweeping.workers import run_here, run_in_processes

    gpus = visible_gpus()
    jobs = jobs_for(arguments.jobs, cells.example, gpus)
    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    for name in sweep.without_effect:
        console.say(f"{sweep.path}: {name} is for W&B's server and has no effect here")
    if cells.repeats:
        console.say(cells.repeats)
    dispatcher = Dispatcher(cells)
    progress = SweepProgress(console, sweep, cells, cells.folder, jobs, verbose=arguments.verbose)
    progress.open(dispatcher)
    try:
        if jobs > 1:
            own = gpus if uses_gpus(cells.example) else ()
            run_in_processes(
                dispatcher, progress, jobs, [gpus_of(i, cells.example.trainer.devices, own) for i in range(jobs)] if own else ()
            )
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

"""What one process of `python -m ablations.run` does: rank 0 runs the cell, the processes beside it take part in its training."""

from __future__ import annotations

from ablations.cell.processes.place import find_place
from ablations.config import Config
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.quiet_libraries import quiet_libraries
from ablations.runtime.stopping import Preempted, StopRequest


def start_cell(config: Config, stop: StopRequest) -> int:
    """Run the cell of a config, or help to; returns the exit code.

    Raises UserError, RunFolderError, FloatingPointError, ProcessLost and Preempted, each with one line that says why.
    """
    place = find_place(config)
    if config.trainer.progress != "none" and place.rank == 0:
        announce_libraries()
    quiet_libraries()
    if place.rank > 0:
        from ablations.cell.lives import follow

        try:
            follow(config, place, stop)
        except Preempted as preempted:
            return preempted.exit_code  # rank 0 says it
        return 0
    from ablations.cell.cell import run_cell

    run_cell(config, stop)
    return 0

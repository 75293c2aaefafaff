"""How the processes of a cell come to be: rank 0 with its crew, and those beside it. Imports no heavy library.

A process that is started anew imports this file first: libraries are told to keep quiet before they are loaded.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from ablations.cell.processes.place import Place, ProcessLost, find_place
from ablations.config import Config, from_flat_dict
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.quiet_libraries import quiet_libraries
from ablations.runtime.stopping import Preempted, StopRequest

if TYPE_CHECKING:
    from ablations.cell.processes.crew import Crew
    from ablations.runtime.console import Console


def crew_of(config: Config, console: Console) -> Crew:
    """The crew of a cell that this process runs as rank 0. Raises UserError where this process is another one's companion."""
    from ablations.cell.processes.crew import Crew

    place = find_place(config)
    if place.rank:
        raise UserError(f"this is {place} of a cell that srun started: only python -m ablations.run can be started that way")
    return Crew(config, place, companion_main, console.say)


def companion_main(connection: Connection, flat: dict, place: Place, port: int) -> None:
    """The life of a process that rank 0 started: it prints nothing, and ends when rank 0 is gone."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is rank 0's, which ends all of them after the same step
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def leave_with_rank_0() -> None:
        with suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    threading.Thread(target=leave_with_rank_0, daemon=True).start()
    try:
        stop = StopRequest().install()
        quiet_libraries()  # before anything heavy is imported
        from torch.distributed import TCPStore

        from ablations.cell.beside import take_part

        store = TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)
        take_part(from_flat_dict(flat), place, store, stop)
    except Preempted as preempted:
        sys.exit(preempted.exit_code)
    except Exception as error:
        # Rank 0 says it, if this process was the first to fail.
        with suppress(OSError):
            connection.send(one_line(f"{type(error).__name__}: {error}"))
        sys.exit(1)


def follow(config: Config, place: Place, stop: StopRequest) -> None:
    """What `python -m ablations.run` does in a process that torchrun or srun started beside rank 0.

    Raises ProcessLost, in one line that names this process, for whatever goes wrong in it alone.
    """
    from ablations.cell.beside import take_part
    from ablations.cell.processes.group import outside_store

    store = outside_store(place)
    try:
        take_part(config, place, store, stop)
    except FloatingPointError:
        sys.exit(1)  # the loss is the same in every process: rank 0 says it
    except Exception as error:
        lost = one_line(f"{place} on {socket.gethostname()}: {type(error).__name__}: {error}")
        with suppress(Exception):  # rank 0, whose store it may be, is gone
            store.set(f"failed/{place.rank}", lost)
        raise ProcessLost(lost) from error

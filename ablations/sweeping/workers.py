"""Running the cells of a sweep: in this process, or in several that each load libraries and networks once.

Processes get their cells from the parent through a pipe and send back what they say and how it ended. A process whose parent is gone
stops as at a signal; a process that dies costs the cell that it ran, and another takes its place.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from ablations.config import Config, from_flat_dict, to_flat_dict
from ablations.results.run_folder import CellBusy, is_finished
from ablations.runtime.command_line import LOADING, announce_libraries
from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.runtime.stopping import Preempted, StopRequest, signals_wait
from ablations.sweeping.cell import Cell
from ablations.sweeping.dispatcher import Dispatcher, Outcome
from ablations.sweeping.gpus import seeing
from ablations.sweeping.progress import RelayConsole, SweepProgress

if TYPE_CHECKING:
    from ablations.cell.shared import Shared

# Seconds between looks at cells that other processes run.
POLL_SECONDS = 1.0
# How long processes that were asked to stop may take to save what they have.
_STOP_SECONDS = 60.0


def run_one(config: Config, stop: StopRequest, shared: Shared, say: Callable[[str], None]) -> tuple[Outcome, str]:
    """Run a cell; returns how it ended, and the traceback of an unexpected failure. Raises Preempted alone."""
    from ablations.cell.cell import run_cell

    started = time.monotonic()
    try:
        if is_finished(config) and not config.force:
            return Outcome("busy"), ""  # another process finished it since it was handed out
        run_cell(config, stop, shared, RelayConsole(say))
    except CellBusy:
        return Outcome("busy"), ""
    except (UserError, RunFolderError, FloatingPointError) as error:
        return Outcome("failed", one_line(error), time.monotonic() - started), ""
    except Exception as error:
        # Whatever it is: it must not stop the other cells.
        return Outcome("failed", one_line(f"{type(error).__name__}: {error}"), time.monotonic() - started), traceback.format_exc()
    return Outcome("finished", seconds=time.monotonic() - started), ""


def run_here(dispatcher: Dispatcher, progress: SweepProgress, stop: StopRequest) -> None:
    """Run the sweep's cells in this process, one after the other, until all have ended."""
    shared = None
    while not dispatcher.is_done:
        cell = dispatcher.next()
        if cell is None:
            if not dispatcher.is_done:  # the last draws of a search may have been repeats
                progress.waiting()
                time.sleep(POLL_SECONDS)
            continue
        if shared is None:
            shared = _open_shared(progress.say)
        progress.begins(cell)
        outcome, details = run_one(cell.config, stop, shared, progress.relay)
        dispatcher.ended(cell, outcome)
        progress.ended(cell, outcome, details)


def _open_shared(say: Callable[[str], None]) -> Shared:
    announce_libraries(say)
    from ablations.cell.shared import Shared

    return Shared()


@dataclass
class _Worker:
    """A process, its number among those that run, and its cell, None while it waits for one."""

    process: multiprocessing.process.BaseProcess
    connection: Connection
    number: int
    cell: Cell | None = None
    is_up: bool = False


def run_in_processes(dispatcher: Dispatcher, progress: SweepProgress, jobs: int, gpus_of_job: Sequence[Sequence[str]] = ()) -> None:
    """Run the sweep's cells in `jobs` processes until all have ended; process i sees the GPUs `gpus_of_job[i]` alone, where there are some.

    Raises Preempted at a signal, when all processes have stopped.
    """
    threads = max(1, num_processors() // jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    each = f" and GPU {', '.join('+'.join(gpus) for gpus in gpus_of_job)}" if gpus_of_job else ""
    progress.say(f"{jobs} processes with {os.environ['OMP_NUM_THREADS']} threads{' each' if not each else ''}{each}; {LOADING}")
    workers: list[_Worker] = []
    try:
        while not dispatcher.is_done:
            for worker in workers:
                if worker.cell is None:
                    _give(worker, dispatcher.next(), progress)
            while len(workers) < jobs and (cell := dispatcher.next()) is not None:
                number = min(set(range(jobs)) - {worker.number for worker in workers})
                workers.append(_start_worker(number, gpus_of_job[number] if gpus_of_job else ()))
                _give(workers[-1], cell, progress)
            if not any(worker.cell for worker in workers) and not dispatcher.is_done:
                progress.waiting()
            for connection in wait([worker.connection for worker in workers], timeout=POLL_SECONDS):
                worker = next(worker for worker in workers if worker.connection is connection)
                if not _listen(worker, dispatcher, progress):
                    workers.remove(worker)
    except BaseException:
        for worker in workers:
            worker.process.terminate()
        raise
    finally:
        for worker in workers:
            worker.connection.close()
        until = time.monotonic() + _STOP_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def num_processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(number: int, gpus: Sequence[str]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=worker_main, args=(theirs,))
    with seeing(gpus), signals_wait():
        process.start()
    theirs.close()
    return _Worker(process, ours, number)


def _give(worker: _Worker, cell: Cell | None, progress: SweepProgress) -> None:
    if cell is None:
        return
    worker.cell = cell
    progress.begins(cell)
    with suppress(OSError):  # it has died: `_listen` hears of that
        worker.connection.send(to_flat_dict(cell.config))


def _listen(worker: _Worker, dispatcher: Dispatcher, progress: SweepProgress) -> bool:
    """Take a message of a worker; returns whether it lives."""
    try:
        kind, *content = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        if not worker.is_up:
            raise RunFolderError(f"a process of the sweep could not start (exit code {code}); its reason stands above") from None
        if worker.cell is not None:
            how = f"was ended by signal {-code} (9 may mean: out of memory)" if code < 0 else f"ended with code {code}"
            _lost(worker.cell, Outcome("failed", f"its process {how}"), dispatcher, progress)
        return False
    if kind == "up":
        worker.is_up = True
    elif kind == "said":
        progress.relay(content[0])
    else:
        cell, worker.cell = worker.cell, None
        assert cell is not None
        dispatcher.ended(cell, content[0])
        progress.ended(cell, *content)
    return True


def _lost(cell: Cell, outcome: Outcome, dispatcher: Dispatcher, progress: SweepProgress) -> None:
    """A cell whose process died: run.json says so, or nobody would know why the cell is not finished."""
    with suppress(CellBusy, RunFolderError), cell.folder.lock():
        if (cell.folder.read() or {}).get("status") == "running":
            cell.folder.fail(outcome.reason)
    dispatcher.ended(cell, outcome)
    progress.ended(cell, outcome, "")


def worker_main(connection: Connection) -> None:
    """The life of a process of a sweep: one cell after the other, until the parent has no more or is gone."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is the parent's: it passes one signal on, a second one would cut a checkpoint short
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    tasks: queue.SimpleQueue[dict | None] = queue.SimpleQueue()
    busy = threading.Event()

    def take_tasks() -> None:
        try:
            while True:
                tasks.put(connection.recv())
        except (EOFError, OSError):
            tasks.put(None)
            busy.wait()  # for ever, where no cell begins any more
            if not stop.requested:  # the parent may have passed a signal on before it closed the pipe: a second one ends at once
                os.kill(os.getpid(), signal.SIGTERM)

    def say(line: str) -> None:
        with suppress(OSError):  # the parent is gone and nobody listens: the cell is still to end as at a signal
            connection.send(("said", line))

    try:
        stop = StopRequest().install()
        shared = _open_shared(lambda line: None)
        connection.send(("up",))
        threading.Thread(target=take_tasks, daemon=True).start()
        while (task := tasks.get()) is not None:
            busy.set()
            outcome, details = run_one(from_flat_dict(task), stop, shared, say)
            busy.clear()
            connection.send(("ended", outcome, details))
    except Preempted as preempted:
        sys.exit(preempted.exit_code)
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(1)  # the parent is gone

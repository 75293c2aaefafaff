"""SIGKILL at a random moment of a small cell, up to three times: the same command ends with equal results and leaves no rubbish."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np

from faults.bench import Kind, Tried, each
from faults.small_cell import arguments
from helpers.small_sweeps import results_in


def run_cell_in_a_process(output_dir: Path) -> None:
    """The command, as a process of its own."""
    from ablations import run

    log = os.open(output_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.exit(run.main(arguments(output_dir)))


def _server() -> ForkServerContext:
    """Processes that come from one in which the libraries are loaded: a start takes no seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ablations.cell.cell", "ablations.run", "faults.kinds.kills"])
    return context


def _run(context: ForkServerContext, output_dir: Path, kill_after: float | None = None) -> tuple[int | None, float]:
    """Exit code and seconds of a run that is killed after so many seconds; None: not at all."""
    process = context.Process(target=run_cell_in_a_process, args=(output_dir,))
    started = time.monotonic()
    process.start()
    try:
        process.join(kill_after)
        if process.is_alive() and kill_after is not None:
            os.kill(process.pid, signal.SIGKILL)
        process.join()
    finally:
        if process.is_alive():
            process.kill()
    return process.exitcode, time.monotonic() - started


def rubbish(output_dir: Path) -> list[str]:
    """What is half-written or set aside in an output folder."""
    return [str(path.relative_to(output_dir)) for path in output_dir.rglob("*") if ".partial" in path.name or path.suffix == ".damaged"]


def try_kills(seed: int, count: int, folder: Path) -> Tried:
    context = _server()
    starting = context.Process(target=os.getpid)  # and with it the server
    starting.start()
    starting.join()
    code, seconds = _run(context, folder / "whole")
    assert code == 0, (folder / "whole.log").read_text()[-2000:]
    whole = results_in(folder / "whole")

    def attempt(rng: np.random.Generator, number: int) -> str | None:
        output_dir, at = folder / f"killed-{number}", []
        for _ in range(int(rng.integers(1, 4))):
            at.append(float(rng.uniform(0, seconds)))
            _run(context, output_dir, at[-1])
        code, _ = _run(context, output_dir)
        when = f"killed after {', '.join(f'{moment:.2f}' for moment in at)} of {seconds:.2f} s"
        if code != 0:
            return f"{when}: exit code {code}: {output_dir.with_suffix('.log').read_text()[-300:]!r}"
        if results_in(output_dir) != whole:
            return f"{when}: other results"
        left = rubbish(output_dir)
        return f"{when}: left {left}" if left else None

    return each("kills", seed, count, attempt)


KIND = Kind("kills", try_kills, short=1, about="SIGKILL at random moments of a cell, then the same command")

"""Rank 0 starts its companions, or waits for those that were started beside it, and ends together with them."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from torch.distributed import TCPStore

from ablations.cell.training.companion import companion_main
from ablations.cell.training.place import Place, ProcessLost
from ablations.cell.training.process_group import POLL_SECONDS, Plan, one_of, outside_store, wait
from ablations.config import Config, to_flat_dict
from ablations.runtime.stopping import Preempted

# How long processes may take to end by themselves: to report why they failed, and to leave once the training is over.
_LAST_WORDS_SECONDS, _LEAVE_SECONDS = 3.0, 20.0


# A lost process leaves the others of a CUDA training in a collective that no exception ends.
_STUCK_SECONDS = 60.0


@contextmanager
def gathered(config: Config, place: Place, plan: Plan, say: Callable[[str], None]) -> Iterator[None]:
    """All processes of the training stand by and are one process group, for as long as the block lasts; called by rank 0.

    Raises ProcessLost where another one fails; what this one raises in consequence is its cause.
    """
    companions: list[_Companion] = []
    has_begun = False
    try:
        if place.from_outside:
            store = outside_store(place)
        else:
            store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
            for rank in range(1, place.world_size):
                companions.append(_Companion(config, replace(place, rank=rank, local_rank=rank), store.port))
        store.set("plan", json.dumps(plan))
        if place.world_size > 1:
            say(f"training: in {place.world_size} processes; waiting for the others to load")
        wait(store, [f"ready/{rank}" for rank in range(1, place.world_size)], say, lambda: _raise_for_lost(companions))
        store.set("go", "")
        has_begun = True
        with one_of(config, place, store), _watched(companions):
            yield
        for companion in companions:
            companion.process.join(_LEAVE_SECONDS)
    except Preempted:
        for companion in companions if has_begun else []:
            companion.process.join(_LEAVE_SECONDS)  # they stop after the same step
        raise
    finally:
        for companion in companions:
            companion.end()


class _Companion:
    """A process that rank 0 started on this machine."""

    def __init__(self, config: Config, place: Place, port: int):
        context = multiprocessing.get_context("spawn")
        self.place = place
        self._connection, theirs = context.Pipe()
        arguments = (theirs, to_flat_dict(config), place, port)
        self.process = context.Process(target=companion_main, args=arguments, name=str(place))
        self.process.start()
        theirs.close()
        self._reason = ""

    def failure(self) -> str | None:
        """Why it failed, as one line; None while it goes on and after a good end."""
        code = self.process.exitcode
        with suppress(EOFError, OSError):
            if self._connection.poll():
                self._reason = self._connection.recv()
        if not self._reason and not code:
            return None
        return f"{self.place} failed: {self._reason or _how_it_ended(code)}"

    def end(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self._connection.close()


def _how_it_ended(code: int) -> str:
    return f"it was ended by signal {-code} (9 may mean: out of memory)" if code < 0 else f"it ended with code {code}"


def _raise_for_lost(companions: list[_Companion]) -> None:
    for companion in companions:
        if (failure := companion.failure()) is not None:
            raise ProcessLost(failure)


@contextmanager
def _watched(companions: list[_Companion]) -> Iterator[None]:
    """Names the companion that failed where an error here is only what came of that.

    Where it leaves this process hanging instead (gloo raises, NCCL may wait for ever), ends this process.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if any(companion.process.exitcode not in (None, 0) for companion in companions) and not over.wait(_STUCK_SECONDS):
                lost = next(filter(None, (companion.failure() for companion in companions)))
                print(f"error: {lost}; the training cannot go on without it", file=sys.stderr, flush=True)
                os._exit(1)

    if companions:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except FloatingPointError:
        raise  # every process sees the same loss
    except Exception as error:
        # The group is still there: after an error of our own, the others wait in it, alive.
        until = time.monotonic() + _LAST_WORDS_SECONDS
        while companions and time.monotonic() < until:
            try:
                _raise_for_lost(companions)
            except ProcessLost as lost:
                raise lost from error
            time.sleep(POLL_SECONDS)
        raise
    finally:
        over.set()


@contextmanager
def dismissing(place: Place) -> Iterator[None]:
    """Rank 0's work on a cell; however it ends, processes that torchrun or srun started beside it do not wait for a training any more."""
    patience = _LEAVE_SECONDS
    try:
        yield
    except Preempted:
        patience = 1.0  # the signal went to all of them
        raise
    finally:
        if place.from_outside:
            store = outside_store(place)
            if not store.check(["plan"]):
                store.set("plan", json.dumps(Plan(False, {}, False)))
                until = time.monotonic() + patience
                # The store may be this process's own: it stays until they have read it.
                while time.monotonic() < until and not store.check([f"left/{rank}" for rank in range(1, place.world_size)]):
                    time.sleep(POLL_SECONDS)

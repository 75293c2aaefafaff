"""The processes of a cell as rank 0 sees them: it says what is to be done, does its own part, and waits for theirs.

On one machine rank 0 starts the others itself, when there is something for them to do, and ends them with it. Under torchrun or srun they
were started beside it and wait for what it says. What they do is told by name, with a few values; results go through files that all of them
see, and through the process group of a training.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from torch.distributed import Store, TCPStore

from ablations.cell.processes.group import POLL_SECONDS, one_of, outside_store, wait
from ablations.cell.processes.place import Place, ProcessLost
from ablations.config import Config, to_flat_dict
from ablations.runtime.stopping import Preempted, signals_wait

T = TypeVar("T")
# What a process that rank 0 started does, until it is told to leave: (connection, flat config, its place, the store's port).
Life = Callable[[Connection, dict, Place, int], None]
LEAVE = "leave"

# How long processes may take to end by themselves: to report why they failed, and to leave once all is done.
_LAST_WORDS_SECONDS, _LEAVE_SECONDS = 3.0, 20.0
# A lost process leaves the others of a CUDA training in a collective that no exception ends.
_STUCK_SECONDS = 60.0


class Crew:
    """All processes of a cell; used by rank 0, as a context. One process alone is a crew too."""

    def __init__(self, config: Config, place: Place, life: Life | None = None, say: Callable[[str], None] = lambda line: None):
        assert place.rank == 0 and (life is not None or place.world_size == 1 or place.from_outside), place
        self.place = place
        self._config, self._life, self._say = config, life, say
        self._store: Store | None = None
        self._companions: list[_Companion] = []
        self._number = 0
        self._in_step = False

    @property
    def world_size(self) -> int:
        return self.place.world_size

    def do(self, what: str, own: Callable[[], T], *, grouped: bool = False, **told: Any) -> T:
        """Have all processes do `what`, this one by `own()`, whose result comes back once all are done.

        `told` is what the others need to know, as JSON. With `grouped` all are one process group meanwhile. Raises ProcessLost where
        another one fails; what this one raises in consequence is its cause.
        """
        if self.world_size == 1 and not grouped:
            return own()
        store = self._open()
        number, self._number = self._number, self._number + 1
        others = range(1, self.world_size)
        store.set(f"task/{number}", json.dumps({"what": what, "grouped": grouped, **told}))
        if grouped:
            if self.world_size > 1:
                self._say(f"{what}: in {self.world_size} processes; waiting for the others to load")
            wait(store, [f"ready/{number}/{rank}" for rank in others], self._waiting, self._look)
            store.set(f"go/{number}", "")
        self._in_step = grouped
        with _watched(self._companions), one_of(self._config, self.place, store, number) if grouped else nullcontext():
            found = own()
        self._in_step = False
        wait(store, [f"done/{number}/{rank}" for rank in others], self._waiting, self._look)
        return found

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """However the work ends: the others leave, and where rank 0 started them it waits for them or ends them."""
        if self._store is None and not self.place.from_outside:
            return
        preempted = kind is not None and issubclass(kind, Preempted)
        if preempted and self._in_step:
            for companion in self._companions:
                companion.process.join(_LEAVE_SECONDS)  # they stop after the same step
        store = self._open()
        store.set(LEAVE, "")
        if self.place.from_outside:
            # The signal went to all of them. The store may be this process's own: it stays until they have read it.
            until = time.monotonic() + (1.0 if preempted else _LEAVE_SECONDS)
            while time.monotonic() < until and not store.check([f"left/{rank}" for rank in range(1, self.world_size)]):
                time.sleep(POLL_SECONDS)
        for companion in self._companions:
            if kind is None:
                companion.process.join(_LEAVE_SECONDS)
            companion.end()
        self._companions, self._store = [], None

    def _open(self) -> Store:
        if self._store is None:
            if self.place.from_outside:
                self._store = outside_store(self.place)
            else:
                self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
                for rank in range(1, self.world_size):
                    place = replace(self.place, rank=rank, local_rank=rank)
                    self._companions.append(_Companion(self._life, self._config, place, self._store.port))
        return self._store

    def _waiting(self, missing: int) -> None:
        self._say(f"still waiting for {missing} process(es)")

    def _look(self) -> None:
        """Raises ProcessLost where another process failed."""
        _raise_for_lost(self._companions)
        for rank in range(1, self.world_size):
            if self._store.check([f"failed/{rank}"]):
                raise ProcessLost(self._store.get(f"failed/{rank}").decode())


class _Companion:
    """A process that rank 0 started on this machine."""

    def __init__(self, life: Life, config: Config, place: Place, port: int):
        context = multiprocessing.get_context("spawn")
        self.place = place
        self._connection, theirs = context.Pipe()
        arguments = (theirs, to_flat_dict(config), place, port)
        self.process = context.Process(target=life, args=arguments, name=str(place))
        with signals_wait():
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
                print(f"error: {lost}; the work cannot go on without it", file=sys.stderr, flush=True)
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

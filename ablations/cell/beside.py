"""The life of a process beside rank 0: it waits for what rank 0 says, takes its part in it, and writes nothing that is rank 0's."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch.distributed import Store, TCPStore

from ablations.cell.drawing.draw import draw_share
from ablations.cell.loading.load import Loaded, get_ready, load_networks, loaded_of, read_data
from ablations.cell.processes.crew import LEAVE, Crew
from ablations.cell.processes.group import POLL_SECONDS, check_devices, one_of, outside_store, threads_of, wait
from ablations.cell.processes.place import Place, ProcessLost, find_place
from ablations.cell.processes.share import Share
from ablations.cell.refining.refine import Sources, refine_share
from ablations.cell.scoring.score import require_metrics, score_share, scorer_for
from ablations.cell.shared import Shared
from ablations.cell.training.fit import train_beside_rank_0
from ablations.cell.training.train import load_trained
from ablations.cell.work import Work
from ablations.config import Config, from_flat_dict
from ablations.results.checkpoints import LAST
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.quiet_libraries import quiet_libraries
from ablations.runtime.stopping import Preempted, StopRequest


def crew_of(config: Config, console: Console) -> Crew:
    """The crew of a cell that this process runs as rank 0. Raises UserError where this process is another one's companion."""
    place = find_place(config)
    if place.rank:
        raise UserError(f"this is {place} of a cell that srun started: only python -m ablations.run can be started that way")
    return Crew(config, place, companion_main, console.say)


def companion_main(connection: Connection, flat: dict, place: Place, port: int) -> None:
    """The life of a process that rank 0 started: it prints nothing, and ends when rank 0 is gone."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is rank 0's, which ends all of them after the same step
    stop = StopRequest().install()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def leave_with_rank_0() -> None:
        with suppress(EOFError, OSError):
            connection.recv()
        os._exit(1)

    threading.Thread(target=leave_with_rank_0, daemon=True).start()
    try:
        quiet_libraries()
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


def take_part(config: Config, place: Place, store: Store, stop: StopRequest) -> None:
    """Do one thing after the other that rank 0 says, until it says that all is done.

    Raises UserError where this process's data or weights are not rank 0's, or its files are not to be seen here.
    """
    # Networks and data are loaded once there is something to do: rank 0 has then read the data, checked the pictures and written the
    # feature cache.
    member = None
    number = 0
    while True:
        task = _next_task(store, number)
        if task is None:
            store.set(f"left/{place.rank}", "")
            return
        if member is None:
            member = _Member(config, place, stop)
        what = task["what"]
        if task["grouped"]:
            member.get_ready(task)
            store.set(f"ready/{number}/{place.rank}", "")
            wait(store, [f"go/{number}"], lambda missing: None)
            with one_of(config, place, store, number):
                member.do(what, task)
        else:
            member.do(what, task)
        store.set(f"done/{number}/{place.rank}", "")
        number += 1


def _next_task(store: Store, number: int) -> dict | None:
    """What rank 0 says next; None where all is done."""
    while not store.check([f"task/{number}"]):
        if store.check([LEAVE]):
            return None
        time.sleep(POLL_SECONDS)
    return json.loads(store.get(f"task/{number}"))


class _Member:
    """This process's networks, data and prompts, and what it does with them."""

    def __init__(self, config: Config, place: Place, stop: StopRequest):
        check_devices(config, place)
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
        torch.set_num_threads(threads_of(config, torch.get_num_threads()))
        self._place, self._share = place, Share(place.rank, place.world_size)
        self._work, self._shared = Work.unheard(config, stop, is_beside=True), Shared()
        self._networks = load_networks(self._work, self._shared)
        self._data = read_data(self._work, self._shared, self._networks[1])
        self._weights = ""

    @cached_property
    def _loaded(self) -> Loaded:
        """Everything, once the feature cache is there."""
        return loaded_of(self._work, *self._networks, self._data, get_ready(self._work, self._data))

    def get_ready(self, task: dict) -> None:
        """Raises UserError where this process has not what rank 0 has."""
        where = f"{self._place} on {socket.gethostname()}"
        for what, digest in {"data": self._loaded.data.digest, "weights": self._loaded.backbones.digest}.items():
            if digest != task["made_from"][what]:
                raise UserError(f"{where} has other {what} than process 0: every machine needs the same")
        last = self._work.folder.checkpoints / LAST
        if task["resume"] and not last.exists():
            raise UserError(f"{where} does not see {last}: put output_dir where every machine sees it")

    def do(self, what: str, task: dict) -> None:
        """Its part of what rank 0 said: "encoding", "training", "refining", "drawing" or "scoring"."""
        if what == "encoding":
            self._data.encode_beside([(start, end) for start, end in task["lacking"]], self._share)
            return
        work, loaded, share = self._work, self._loaded, self._share
        if what == "training":
            train_beside_rank_0(work, loaded.module, loaded.data, task["made_from"], task["resume"], self._place)
            return
        self._take_weights(task["checkpoint"])
        stores = self._shared.stores(work.config, loaded.backbones)
        if what == "refining":
            refine_share(work, Sources(loaded.prompts, loaded.module, loaded.at_step_0, loaded.data.known_phrases), share)
        elif what == "drawing":
            draw_share(work, loaded.module, share, stores.pictures)
        else:
            assert what == "scoring", what
            scorer = scorer_for(work, loaded.module, stores.scores, require_metrics(work))
            score_share(work, scorer, loaded.prompts, share)

    def _take_weights(self, checkpoint: str) -> None:
        """The trained weights that rank 0 evaluates; once for all stages."""
        if self._weights != checkpoint:
            load_trained(self._loaded.module, Path(checkpoint))
            self._loaded.module.to(self._loaded.backbones.text_to_image.device).eval()
            self._weights = checkpoint

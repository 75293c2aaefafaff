"""What a process beside rank 0 does of each stage, as rank 0 says; it writes nothing that is rank 0's."""

from __future__ import annotations

import json
import socket
import time
from functools import cached_property
from pathlib import Path

import torch
from torch.distributed import Store

from ablations.cell.drawing.draw import draw_share
from ablations.cell.loading.load import Loaded, get_ready, load_networks, loaded_of, read_data
from ablations.cell.processes.crew import LEAVE
from ablations.cell.processes.group import POLL_SECONDS, check_devices, one_of, threads_of, wait
from ablations.cell.processes.place import Place
from ablations.cell.processes.share import Share
from ablations.cell.refining.refine import Sources, refine_share, seen_by
from ablations.cell.scoring.score import require_metrics, score_share, scorer_for
from ablations.cell.shared import Shared
from ablations.cell.training.fit import train_beside_rank_0
from ablations.cell.training.train import load_trained
from ablations.cell.work import Work
from ablations.config import Config
from ablations.results.checkpoints import LAST
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest


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
            refine_share(work, Sources(loaded.prompts, loaded.module, loaded.at_step_0, loaded.data.known_phrases, seen_by(work)), share)
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

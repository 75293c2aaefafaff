"""The life of a process beside rank 0: it takes part in trainings and does nothing else."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

import torch
from torch.distributed import Store, TCPStore

from ablations.cell.training.place import Place, ProcessLost
from ablations.cell.training.process_group import Plan, check_devices, one_of, outside_store, wait
from ablations.config import Config, from_flat_dict
from ablations.results.checkpoints import LAST
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.stopping import Preempted, StopRequest


def companion_main(connection: Connection, flat: dict, place: Place, port: int) -> None:
    """The life of a process that rank 0 started: it takes part in one training, prints nothing, and ends when rank 0 is gone."""
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
        from ablations.runtime.quiet_libraries import quiet_libraries

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
    try:
        take_part(config, place, outside_store(place), stop)
    except FloatingPointError:
        sys.exit(1)  # the loss is the same in every process: rank 0 says it
    except Exception as error:
        raise ProcessLost(one_line(f"{place} on {socket.gethostname()}: {type(error).__name__}: {error}")) from error


def take_part(config: Config, place: Place, store: Store, stop: StopRequest) -> None:
    """Load what the training needs and train, as rank 0 decides; returns at once where it decides that nothing is to be done.

    Raises UserError where this process's data or weights are not rank 0's, or its checkpoint is not to be seen here.
    """
    from ablations.cell.loading.data import build_data
    from ablations.cell.loading.device import device_of, ready
    from ablations.cell.loading.kept import Kept
    from ablations.cell.loading.module import build_module
    from ablations.cell.training.fit import train_beside_rank_0
    from ablations.cell.work import Work

    check_devices(config, place)
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    work, kept = Work.unheard(config, stop), Kept()
    backbones = kept.backbones(config)
    # After rank 0, which has then read the data, checked the pictures and written the feature cache.
    wait(store, ["plan"], lambda line: None)
    plan = Plan(*json.loads(store.get("plan")))
    if not plan.train:
        store.set(f"left/{place.rank}", "")
        return
    module = build_module(config, backbones)
    backbones.to(ready(device_of(config)))
    data = build_data(config, module, work.console.say)
    kept.read_records(config, data)
    data.setup("fit")
    where = f"{place} on {socket.gethostname()}"
    for what, digest in {"data": data.digest, "weights": backbones.digest}.items():
        if digest != plan.made_from[what]:
            raise UserError(f"{where} has other {what} than process 0: every machine needs the same")
    last = work.folder.checkpoints / LAST
    if plan.resume and not last.exists():
        raise UserError(f"{where} does not see {last}: put output_dir where every machine sees it")
    store.set(f"ready/{place.rank}", "")
    wait(store, ["go"], lambda line: None)
    with one_of(config, place, store):
        train_beside_rank_0(work, module, data, plan, place)

"""One training in several processes: how they are started, meet, and end together.

Rank 0 is the process that owns the cell: its lock, its files, W&B, what is printed, the evaluation. The others, its companions,
only train. On one machine rank 0 starts them itself, for each training anew, and ends them with it; under torchrun or srun they
were started beside it, and wait for what it decides. Lightning's own launchers fit neither: "ddp" runs the command line
again, which in a sweep is the whole sweep, and "ddp_spawn" moves the training itself into a child, away from locks, W&B and signals.
Lightning's DDPStrategy does the training all the same; it finds the processes already there.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed
from torch.distributed import DistNetworkError, PrefixStore, Store, TCPStore

from ablations.config import Config, from_flat_dict, to_flat_dict
from ablations.errors import UserError, one_line
from ablations.launch import Place, ProcessLost
from ablations.stopping import Preempted, StopRequest

_POLL_SECONDS = 0.05
_SAY_WAITING_EVERY_S = 60.0
# How long processes may take to end by themselves: to report why they failed, and to leave once the training is over.
_LAST_WORDS_SECONDS, _LEAVE_SECONDS = 3.0, 20.0
# A lost process leaves the others of a CUDA training in a collective that no exception ends.
_STUCK_SECONDS = 60.0
# How long processes that stand by wait for one another to form a group.
_GROUP_TIMEOUT = timedelta(minutes=10)


class _KnownPlace(ClusterEnvironment):
    """Tells Lightning what it would otherwise look for; the process group is there when it asks."""

    def __init__(self, place: Place):
        super().__init__()
        self._place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        raise NotImplementedError("the process group is there already")

    @property
    def main_port(self) -> int:
        raise NotImplementedError("the process group is there already")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._place.world_size

    def set_world_size(self, size: int) -> None:
        assert size == self._place.world_size

    def global_rank(self) -> int:
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._place.rank

    def local_rank(self) -> int:
        return self._place.local_rank

    def node_rank(self) -> int:
        return self._place.node_rank


class JoinedDDP(DDPStrategy):
    """Lightning's DDP among processes that are there already: it starts none, and sets no threads and no variables for them."""

    def __init__(self, place: Place):
        # Nothing trained is unused (the module says so beforehand), and no buffer changes.
        super().__init__(
            cluster_environment=_KnownPlace(place), find_unused_parameters=False, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def _configure_launcher(self) -> None:
        self._launcher = None


def uses_ddp(config: Config) -> bool:
    """Whether the config's training is Lightning's DDP."""
    return config.trainer.devices * config.trainer.num_nodes > 1 or config.trainer.strategy == "ddp"


def check_devices(config: Config) -> None:
    """Raises UserError where this machine has fewer devices than trainer.devices asks for."""
    asked, kind = config.trainer.devices, config.trainer.accelerator
    if asked == 1 or kind == "cpu":
        return
    if kind != "mps" and torch.cuda.is_available():
        if torch.cuda.device_count() < asked:
            raise UserError(f"trainer.devices={asked}, but torch sees {torch.cuda.device_count()} CUDA device(s) on {socket.gethostname()}")
    elif kind == "mps" or (kind == "auto" and torch.backends.mps.is_available()):
        raise UserError(f"trainer.devices={asked}, but MPS is one device: set trainer.devices=1 or trainer.accelerator=cpu")


class Plan(NamedTuple):
    """What rank 0 decided: whether there is anything to train, from which data and weights, and whether from a checkpoint on."""

    train: bool
    made_from: dict[str, str]
    resume: bool


# -- rank 0 -----------------------------------------------------------------------------------------------------------


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
        _wait(store, [f"ready/{rank}" for rank in range(1, place.world_size)], say, companions)
        store.set("go", "")
        has_begun = True
        with _one_of(config, place, store), _watched(companions):
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
            time.sleep(_POLL_SECONDS)
        raise
    finally:
        over.set()


def _wait(store: Store, keys: list[str], say: Callable[[str], None], companions: list[_Companion] | None = None) -> None:
    """Wait until the keys are there, in steps, so that a signal is heard and a lost process is seen."""
    waited = time.monotonic()
    while keys and not store.check(keys):
        _raise_for_lost(companions or [])
        if time.monotonic() - waited > _SAY_WAITING_EVERY_S:
            waited = time.monotonic()
            say(f"training: still waiting for {sum(not store.check([key]) for key in keys)} process(es)")
        time.sleep(_POLL_SECONDS)


@contextmanager
def _one_of(config: Config, place: Place, store: Store) -> Iterator[None]:
    """This process as a member of torch's process group."""
    on_cuda = config.trainer.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
    threads = torch.get_num_threads()
    if not on_cuda and config.trainer.threads is None:
        torch.set_num_threads(max(1, threads // config.trainer.devices))
    distributed.init_process_group(
        "nccl" if on_cuda else "gloo", store=PrefixStore("group", store), rank=place.rank, world_size=place.world_size
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(threads)


# -- the others -------------------------------------------------------------------------------------------------------


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
        from ablations.quiet import quiet_libraries

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
    from ablations.cell import build_data, build_module, device_of
    from ablations.console import Console
    from ablations.run_folder import RunFolder
    from ablations.training import LAST, train_beside_rank_0
    from ablations.workshop import Workshop

    check_devices(config)
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    workshop, folder = Workshop(), RunFolder(config)
    backbones = workshop.backbones(config)
    # After rank 0, which has then read the data, checked the pictures and written the feature cache.
    _wait(store, ["plan"], lambda line: None)
    plan = Plan(*json.loads(store.get("plan")))
    if not plan.train:
        store.set(f"left/{place.rank}", "")
        return
    backbones.to(device_of(config))
    module = build_module(config, backbones)
    data = build_data(config, folder, backbones, module, Console("none").say)
    data.manifest_path = None
    workshop.read_records(config, data)
    data.setup("fit")
    where = f"{place} on {socket.gethostname()}"
    for what, digest in {"data": data.digest, "weights": backbones.digest}.items():
        if digest != plan.made_from[what]:
            raise UserError(f"{where} has other {what} than process 0: every machine needs the same")
    if plan.resume and not (folder.checkpoints / LAST).exists():
        raise UserError(f"{where} does not see {folder.checkpoints / LAST}: put output_dir where every machine sees it")
    store.set(f"ready/{place.rank}", "")
    _wait(store, ["go"], lambda line: None)
    with _one_of(config, place, store):
        train_beside_rank_0(config, place, folder, module, data, plan, stop)


# -- processes that were started from outside ---------------------------------------------------------------------------


@functools.cache
def outside_store(place: Place) -> Store:
    """Where the processes that torchrun or srun started meet; they wait, in steps, until rank 0 is there."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # torchrun's own process usually keeps the store; it outlives a restart of ours, so each attempt has its own keys.
        hosts = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    else:
        slurm = SLURMEnvironment(auto_requeue=False)
        host, port, hosts = slurm.main_address, slurm.main_port, place.rank == 0
    while True:
        try:
            store = TCPStore(host, port, is_master=hosts, wait_for_workers=False, timeout=timedelta(seconds=5))
            store.set_timeout(_GROUP_TIMEOUT)
            return PrefixStore(f"ablations/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        except DistNetworkError:
            if hosts:
                raise
            time.sleep(1.0)


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
                    time.sleep(_POLL_SECONDS)


__all__ = ["JoinedDDP", "Plan", "check_devices", "dismissing", "follow", "gathered", "take_part", "uses_ddp"]

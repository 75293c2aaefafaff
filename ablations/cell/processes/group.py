"""How the processes of a training meet and form one process group, which Lightning then finds.

Rank 0 is the process that owns the cell: its lock, its files, W&B, what is printed. Lightning's own launchers fit neither way in which the
others come to be: "ddp" runs the command line again, which in a sweep is the whole sweep, and "ddp_spawn" moves the training itself into
a child, away from locks, W&B and signals. Lightning's DDPStrategy does the training all the same; it finds the processes already there.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch import distributed
from torch.distributed import DistNetworkError, PrefixStore, ProcessGroup, Store, TCPStore

from ablations.cell.processes.place import Place
from ablations.config import Config
from ablations.runtime.errors import UserError
from ablations.runtime.launchers import number_of
from datamodules.sharing import Sharing

POLL_SECONDS = 0.05
_SAY_WAITING_EVERY_S = 60.0
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
        raise RuntimeError("the process group is there already: nobody needs an address to meet at")

    @property
    def main_port(self) -> int:
        raise RuntimeError("the process group is there already: nobody needs an address to meet at")

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._place.world_size

    def set_world_size(self, size: int) -> None:
        """What Lightning counts by the devices that this process sees, which may be its own alone."""

    def global_rank(self) -> int:
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """As `set_world_size`."""

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

    @property
    def root_device(self) -> torch.device:
        """This process's device: by its number on this machine, or the only one that it sees."""
        return self.parallel_devices[self.local_rank % len(self.parallel_devices)]


def uses_ddp(config: Config) -> bool:
    """Whether the config's training is Lightning's DDP."""
    return config.trainer.devices * config.trainer.num_nodes > 1 or config.trainer.strategy == "ddp"


def sharing_of(config: Config, place: Place | None) -> Sharing:
    """How the processes of a training share its steps out; None: there is one process."""
    return Sharing(place.world_size if place else 1, config.train.accumulate)


def batch_group(sharing: Sharing, rank: int) -> ProcessGroup | None:
    """The processes that share this rank's batches out, None where it has whole ones. All processes ask together."""
    if sharing.processes_per_batch == 1:
        return None
    if sharing.at_once == 1:
        return distributed.group.WORLD
    groups = [distributed.new_group(ranks) for ranks in sharing.groups()]
    return groups[sharing.place_of(rank)[0]]


def sees_its_own_device(config: Config, place: Place) -> bool:
    """Whether srun showed each process one GPU, its own (--gpus-per-task=1). torchrun's processes see all of them."""
    if config.trainer.accelerator in ("cpu", "mps") or not place.from_outside or "TORCHELASTIC_RUN_ID" in os.environ:
        return False
    return torch.cuda.is_available() and torch.cuda.device_count() == 1


def check_devices(config: Config, place: Place) -> None:
    """Raises UserError where this machine has fewer devices than trainer.devices asks for."""
    asked, kind = config.trainer.devices, config.trainer.accelerator
    if asked == 1 or kind == "cpu" or sees_its_own_device(config, place):
        return
    if kind != "mps" and torch.cuda.is_available():
        if torch.cuda.device_count() < asked:
            raise UserError(f"trainer.devices={asked}, but torch sees {torch.cuda.device_count()} CUDA device(s) on {socket.gethostname()}")
    elif kind == "mps" or (kind == "auto" and torch.backends.mps.is_available()):
        raise UserError(f"trainer.devices={asked}, but MPS is one device: set trainer.devices=1 or trainer.accelerator=cpu")


def wait(store: Store, keys: list[str], waiting: Callable[[int], None], look: Callable[[], None] = lambda: None) -> None:
    """Wait until the keys are there, in steps, so that a signal is heard; `look` may raise for a process that was lost, `waiting` hears now
    and then how many keys are missing."""
    waited = time.monotonic()
    while keys and not store.check(keys):
        look()
        if time.monotonic() - waited > _SAY_WAITING_EVERY_S:
            waited = time.monotonic()
            waiting(sum(not store.check([key]) for key in keys))
        time.sleep(POLL_SECONDS)


@contextmanager
def one_of(config: Config, place: Place, store: Store, number: int) -> Iterator[None]:
    """This process as a member of torch's process group, the crew's `number`-th."""
    on_cuda = config.trainer.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
    distributed.init_process_group(
        "nccl" if on_cuda else "gloo",
        store=PrefixStore(f"group/{number}", store),
        rank=place.rank,
        world_size=place.world_size,
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


def threads_of(config: Config, available: int) -> int:
    """Threads of a process of the cell: as asked for, else the processors are shared out among those that compute on them."""
    if config.trainer.threads is not None:
        return config.trainer.threads
    on_cuda = config.trainer.accelerator not in ("cpu", "mps") and torch.cuda.is_available()
    return available if on_cuda else max(1, available // config.trainer.devices)


@functools.cache
def outside_store(place: Place) -> Store:
    """Where the processes that torchrun or srun started meet; they wait, in steps, until rank 0 is there."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        host, port = _variable("MASTER_ADDR", "torchrun"), number_of("MASTER_PORT", "torchrun")
        # torchrun's own process usually keeps the store; it outlives a restart of ours, so each attempt has its own keys.
        hosts = place.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    else:
        host, port, hosts = *_meeting_point_of_srun(), place.rank == 0
    while True:
        try:
            store = TCPStore(host, port, is_master=hosts, wait_for_workers=False, timeout=timedelta(seconds=5))
            store.set_timeout(_GROUP_TIMEOUT)
            return PrefixStore(f"ablations/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        except DistNetworkError:
            if hosts:
                raise
            time.sleep(1.0)


def _meeting_point_of_srun() -> tuple[str, int]:
    """The first node of the step, and a port that follows from the job's number, unless MASTER_ADDR and MASTER_PORT say otherwise."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST")
    host = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes or _variable("SLURM_JOB_NODELIST", "srun"))
    if "MASTER_PORT" in os.environ:
        return host, number_of("MASTER_PORT", "srun")
    return host, 15000 + number_of("SLURM_JOB_ID", "srun") % 10000


def _variable(name: str, launcher: str) -> str:
    if not os.environ.get(name):
        raise UserError(f"{name} is not set, and {launcher} sets it: the processes need it to meet")
    return os.environ[name]

"""Which of the processes that train together this one is, and whether the user's command or torchrun or srun started them.

Imports no heavy library: a launch that does not fit the config is refused before anything is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from ablations.config import Config
from ablations.runtime.errors import OneLineError, UserError
from ablations.runtime.launchers import number_of

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
# Set by srun for the tasks that it starts, and not for a batch script or a shell, which are one process however many tasks they may start.
_SRUN = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID")


class ProcessLost(OneLineError, RuntimeError):
    """Another process of the training failed or is gone. Its message is one line that says which, and why if that is known."""


@dataclass(frozen=True)
class Place:
    """A process among the `world_size` that train together; rank 0 owns the run folder. `from_outside`: torchrun or srun started it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    node_rank: int = 0
    from_outside: bool = False

    def __str__(self) -> str:
        return f"process {self.rank} of {self.world_size}"


def refuse_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError under torchrun, for commands that start what they need themselves."""
    if "TORCHELASTIC_RUN_ID" in environment and number_of("WORLD_SIZE", "torchrun", environment) > 1:
        raise UserError("torchrun is for python -m ablations.run; start this command without it (trainer.devices works here too)")


def find_place(config: Config, environment: Mapping[str, str] = os.environ) -> Place:
    """This process's place. Raises UserError where the processes that were started are not those that the config asks for."""
    devices, nodes = config.trainer.devices, config.trainer.num_nodes
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, names = "torchrun", _TORCHRUN
    elif devices * nodes > 1 and "SLURM_STEP_NUM_TASKS" in environment and number_of("SLURM_STEP_NUM_TASKS", "srun", environment) > 1:
        launcher, names = "srun", _SRUN
    elif nodes > 1:
        raise UserError(
            f"trainer.num_nodes={nodes} needs a launcher that starts a process per device on every machine: "
            f"torchrun --nnodes={nodes} --nproc-per-node={devices} ... -m ablations.run ..., or srun"
        )
    else:
        return Place(world_size=devices)
    rank, started, local_rank, node_rank = (number_of(name, launcher, environment) for name in names)
    if started != devices * nodes or local_rank >= devices:
        raise UserError(
            f"{launcher} started {started} processes, but trainer.devices={devices} and trainer.num_nodes={nodes} ask for "
            f"{devices * nodes}, {devices} on each machine: set trainer.devices to the processes per machine and trainer.num_nodes "
            "to the machines"
        )
    if rank >= started or node_rank >= nodes:
        said = ", ".join(f"{name}={value}" for name, value in zip(names, (rank, started, local_rank, node_rank), strict=True))
        raise UserError(f"{launcher}'s variables contradict each other ({said}): start this by {launcher}, or unset them")
    return Place(rank, started, local_rank, node_rank, from_outside=started > 1)

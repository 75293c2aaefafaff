"""Environments that launchers leave: one process is one process, or one line says which variable cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from pytorch_lightning.plugins.environments import LightningEnvironment

from ablations.cell.processes.place import find_place, refuse_launcher
from ablations.cell.training.fit import make_trainer
from ablations.config import parse
from ablations.runtime.errors import UserError
from ablations.runtime.launchers import require_numbers
from faults.bench import Kind, Tried, each

LAUNCHERS = {
    "torchrun": ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"),
    "srun": (
        *("SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
        *("SLURM_LOCALID", "SLURM_NODEID", "SLURM_NNODES", "SLURM_NODELIST", "SLURM_STEP_NODELIST", "SLURM_GPUS_ON_NODE"),
    ),
    "jsrun": ("LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK"),
    "mpirun": ("PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
}
_ALL = tuple(name for names in LAUNCHERS.values() for name in names)
_TEXTS = ("", " ", "one", "-1", "1.5", "0x2", "2(x2)", "nan", "node[3-4]", "bash", "interactive", "None", "٣", "²", "1e3", "9" * 400, "\t1")


def try_launchers(seed: int, count: int, folder: Path) -> Tried:
    def attempt(rng, number) -> str | None:
        names = set(LAUNCHERS[str(rng.choice(list(LAUNCHERS)))]) | set(rng.choice(_ALL, rng.integers(0, 4)).tolist())
        names -= set(rng.choice(_ALL, rng.integers(0, 6)).tolist())
        odd = rng.random() < 0.5
        variables = {name: str(rng.choice(_TEXTS)) if odd and rng.random() < 0.3 else str(rng.integers(0, 5)) for name in sorted(names)}
        devices, nodes = int(rng.choice([1, 1, 1, 2, 4])), int(rng.choice([1, 1, 1, 2]))
        shared = [f"train.batch_size={8 * devices * nodes}", "trainer.accelerator=cpu", f"output_dir={folder}"]
        config = parse([f"trainer.devices={devices}", f"trainer.num_nodes={nodes}", *shared])
        clean = {name: value for name, value in os.environ.items() if name not in _ALL}
        with mock.patch.dict(os.environ, clean | variables, clear=True):
            try:
                require_numbers()
                place = find_place(config)
                refuse_launcher()
            except UserError as error:
                return None if len(str(error)) < 300 else f"a long line: {error}"
            if devices * nodes > 1:
                return None if place.world_size in (devices, devices * nodes) else f"{place} with {devices} devices on {nodes} machines"
            if str(place) != "process 0 of 1":
                return f"{place}, with {variables}"
            trainer = make_trainer(config, 1, [])
        cluster = trainer._accelerator_connector.cluster_environment
        if not isinstance(cluster, LightningEnvironment) or (trainer.world_size, trainer.global_rank) != (1, 0):
            return f"{type(cluster).__name__}, rank {trainer.global_rank} of {trainer.world_size}, with {variables}"
        return None

    return each("launchers", seed, count, attempt)


KIND = Kind("launchers", try_launchers, short=40, about="variables of torchrun, srun, jsrun and mpirun, missing, left over and odd")

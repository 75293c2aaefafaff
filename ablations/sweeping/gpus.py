"""Which GPUs the processes of a sweep get: each its own, so that no two cells share one.

Asks torch only where there may be a GPU, since importing it takes seconds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ablations.config import Config
from ablations.runtime.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that torch sees here, as CUDA_VISIBLE_DEVICES names them: by number, or as that variable has them (GPU-..., MIG-...)."""
    named = environment.get(VISIBLE)
    if named is None and shutil.which("nvidia-smi") is None:
        return ()
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [name.strip() for name in named.split(",")] if named is not None else [str(number) for number in range(count)]
    return tuple(names[:count])


def uses_gpus(config: Config) -> bool:
    """Whether the config's cells compute on CUDA devices where there are some."""
    return config.trainer.accelerator in ("auto", "gpu")


def jobs_for(asked: int | None, config: Config, gpus: Sequence[str]) -> int:
    """How many processes a sweep runs in: `asked`, or one for each GPU (for each trainer.devices of them), or 1 where there is none.

    Raises UserError where more are asked for than there are GPUs, which would have to share one and its memory.
    """
    if not gpus or not uses_gpus(config):
        return asked or 1
    devices = config.trainer.devices
    most, here = len(gpus) // devices, f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"
    if not most:
        raise UserError(f"trainer.devices={devices}, but torch sees {here} here: set trainer.devices")
    if asked is not None and asked > most:
        hold = f"{most} process{'es' if most > 1 else ''}" + (f" of trainer.devices={devices}" if devices > 1 else "")
        raise UserError(f"--jobs {asked}, but the {here} here hold {hold}: leave --jobs out, or set trainer.accelerator=cpu")
    return asked or most


def jobs_here(asked: int | None, config: Config) -> int:
    """`jobs_for` on this machine."""
    return jobs_for(asked, config, visible_gpus())


def gpus_of(worker: int, devices: int, gpus: Sequence[str]) -> tuple[str, ...]:
    """The GPUs of a sweep's process, by its number."""
    return tuple(gpus[worker * devices : (worker + 1) * devices])


@contextmanager
def seeing(gpus: Sequence[str]) -> Iterator[None]:
    """Processes that are started inside see these GPUs alone; no GPUs named: what this process sees."""
    before = os.environ.get(VISIBLE)
    try:
        if gpus:
            os.environ[VISIBLE] = ",".join(gpus)
        yield
    finally:
        if before is None:
            os.environ.pop(VISIBLE, None)
        else:
            os.environ[VISIBLE] = before

"""What launchers of processes (torchrun, srun, jsrun) say in the environment, read with one line for what cannot be read."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ablations.runtime.errors import UserError

# What Lightning, torch and their like read as numbers when they are imported, whether or not a launcher started this process.
_NUMBERS = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    *("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"),
    *("JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_LOCAL_RANK"),
    *("PMI_RANK", "PMI_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)

_MOST_DIGITS = 18  # of a 64-bit number


def require_numbers(environment: Mapping[str, str] = os.environ) -> None:
    """Raises UserError for a launcher's variable that is set and is no number. Call before heavy imports."""
    for name in _NUMBERS:
        if name in environment:
            number_of(name, "a launcher", environment)


def number_of(name: str, launcher: str, environment: Mapping[str, str] = os.environ) -> int:
    """A variable of a launcher, as a number of at least 0. Raises UserError where it is missing or is none."""
    text = environment.get(name)
    if text is None:
        raise UserError(f"{name} is not set, though {launcher} seems to have started this: start it by {launcher}, or unset its variables")
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise UserError(f"{name}={shown!r} is no number, and {launcher} sets one: unset it, or start this by {launcher}")
    return int(text)

"""Chance as a function: every draw of the data side, keyed by seed, epoch, record and the kind of draw.

Each kind of draw has a tag of its own, so that two kinds never share numbers, and no draw depends on how many were made
before it. No global random state is read or written.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

# Tags of the data side. They are part of every draw's key: changing one changes what every run trains on.
PERMUTATION = 101
COARSE_LENGTH = 102
FLIP = 103
BANK = 104
VALIDATION_COARSE_LENGTH = 105
VALIDATION_BANK = 106
STYLE_DROPOUT = 107


def keyed_rng(seed: int, *integers: int, tag: int) -> np.random.Generator:
    """The generator of one draw. Raises ValueError for a negative seed."""
    if seed < 0:
        raise ValueError(f"seed={seed} is negative; a seed is a whole number from 0")
    return np.random.default_rng([seed, *integers, tag])


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order in which an epoch visits `count` records: int64 (count,)."""
    return _frozen(keyed_rng(seed, epoch, tag=PERMUTATION).permutation(count))


@lru_cache(maxsize=8)
def uniform_by_id(seed: int, epoch: int, count: int, tag: int) -> np.ndarray:
    """A number in [0, 1) for each record id below `count`: float64 (count,).

    One generator serves a whole epoch, since a generator per record would take longer than the training step's own data
    work. Entry i depends on (seed, epoch, i, tag) alone: numpy takes exactly one output of the stream per double, so a
    larger `count` appends and changes nothing before it.
    """
    return _frozen(keyed_rng(seed, epoch, tag=tag).random(count))

"""The keys of an evaluation's chance: token sampling and image noise are functions of seed, prompt and candidate."""

from __future__ import annotations

import hashlib

import numpy as np

_PROMPT_TAG, _IMAGE_TAG = 0x50, 0x51


def _key(*parts: int) -> int:
    """A 63-bit seed that is a function of the integers alone."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def prompt_seed(seed: int, prompt_id: int, candidate: int) -> int:
    """The key of a candidate's token sampling."""
    return _key(seed, prompt_id, candidate, _PROMPT_TAG)


def image_seed(seed: int, prompt_id: int, candidate: int) -> int:
    """The key of a candidate's image noise; the same for every condition."""
    return _key(seed, prompt_id, candidate, _IMAGE_TAG)


def prompt_key(text: str) -> int:
    """The number that stands for a prompt's text where a prompt of a data set has its id: 63 bits of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1

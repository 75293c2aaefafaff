"""Which rows of a table are held out: decided by their text, not by chance that a repaired row would change."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.readers.captions import clean_caption
from datamodules.records import CFPRecord

_HELD_OUT_KEY = b"held-out rows, 0"


@dataclass(frozen=True)
class TableSplit:
    """Positions, int64, of training and validation records in file order; `distinct` has one position per distinct fine prompt.

    `distinct[split]` is in keyed order: the first n of it are a fair sample, and part of the first n + 1.
    """

    train: np.ndarray
    validation: np.ndarray
    distinct: dict[str, np.ndarray]


def split_table(records: Sequence[CFPRecord], num_validation: int, num_train: int | None) -> TableSplit:
    """Hold out `num_validation` records; train on the rest, or on `num_train` of them.

    Records whose fine prompts are equal after caption cleaning fall on the same side, so nothing held out is trained on under
    another spelling. The order is that of a keyed hash of the text, the same for every seed. Raises ValueError where the table
    has too few records.
    """
    groups: dict[str, list[int]] = {}
    for position, record in enumerate(records):
        groups.setdefault(clean_caption(record.fine_prompt) or record.fine_prompt, []).append(position)
    ordered = [groups[text] for text in sorted(groups, key=_keyed_hash)]
    held_out: list[list[int]] = []
    missing = num_validation
    rest = []
    for group in ordered:
        if len(group) <= missing:
            held_out.append(group)
            missing -= len(group)
        else:
            rest.append(group)
    available = sum(map(len, rest))
    if missing or not rest:
        raise ValueError(
            f"data.num_validation={num_validation} leaves nothing to train on: the source has {len(records)} usable records; lower it"
        )
    if num_train is not None and num_train > available:
        raise ValueError(
            f"data.num_train={num_train} is more than the {available} records that {len(records)} usable ones, "
            f"less data.num_validation={num_validation}, leave"
        )
    train = [position for group in rest for position in group][:num_train]
    used = set(train)
    distinct = {
        "train": np.array([group[0] for group in rest if group[0] in used], dtype=np.int64),
        "validation": np.array([group[0] for group in held_out], dtype=np.int64),
    }
    validation = [position for group in held_out for position in group]
    return TableSplit(np.array(sorted(train), dtype=np.int64), np.array(sorted(validation), dtype=np.int64), distinct)


def _keyed_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=_HELD_OUT_KEY).digest()

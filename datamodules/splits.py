"""Which rows of a table are held out: decided by their text, not by chance that a repaired row would change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.readers.captions import clean_caption
from datamodules.records import CFPRecord

_HELD_OUT_KEY = b"held-out rows, 0"


@dataclass(frozen=True)
class TableSplit:
    """Positions, int64, of training and validation records in file order; `distinct` has one position per distinct fine prompt.

    `distinct[split]` is in keyed order: the first n of it are a fair sample, and part of the first n + 1. `remark` says, in a line, where
    fewer are held out than were asked for, else it is "".
    """

    train: np.ndarray
    validation: np.ndarray
    distinct: dict[str, np.ndarray]
    remark: str = ""


def split_table(records: Sequence[CFPRecord], num_validation: int, num_train: int | None) -> TableSplit:
    """Hold out `num_validation` records; train on the rest, or on `num_train` of them.

    Records whose fine prompts are equal after caption cleaning fall on the same side, so nothing held out is trained on under
    another spelling: as many whole groups of them are held out as fit. The order is that of a keyed hash of the text, the same for every
    seed. Raises ValueError where the table has too few records, or its prompts too many each.
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
    if not rest or (missing and not held_out):
        raise ValueError(_why_no_split(records, groups, num_validation))
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
    remark = ""
    if missing:
        remark = (
            f"{len(validation)} rows of {len(held_out)} prompts are held out, not data.num_validation={num_validation}: the rows of a "
            f"prompt stay together, and every other prompt has {min(map(len, rest))} or more"
        )
    return TableSplit(np.array(sorted(train), dtype=np.int64), np.array(sorted(validation), dtype=np.int64), distinct, remark)


def _why_no_split(records: Sequence[CFPRecord], groups: Mapping[str, Sequence[int]], num_validation: int) -> str:
    """Why no group can be held out, or none trained on."""
    sizes = [len(group) for group in groups.values()]
    if len(groups) == 1 and num_validation:
        return (
            f"data.num_validation={num_validation}: all {len(records)} usable records have the same fine prompt "
            f"({records[0].fine_prompt[:60]!r}), so none can be held out whose prompt is not trained on: set data.num_validation=0"
        )
    if records and num_validation < min(sizes):
        return (
            f"data.num_validation={num_validation} holds out nothing: the rows of a prompt stay together, and each of the {len(groups)} "
            f"prompts has {min(sizes)} or more; raise it to at least {min(sizes)}"
        )
    return f"data.num_validation={num_validation} leaves nothing to train on: the source has {len(records)} usable records; lower it"


def _keyed_hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=_HELD_OUT_KEY).digest()

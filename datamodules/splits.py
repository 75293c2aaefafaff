"""Which rows of a table are held out: those that its own split says, or by their text, not by chance that a repaired row would change."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.readers.captions import clean_caption
from datamodules.readers.record_parser import SPLIT_COLUMN
from datamodules.records import CFPRecord

_HELD_OUT_KEY = b"held-out rows, 0"
# What the column of the split says, in any case. Where there are test rows, those of validation are neither trained on nor drawn.
_TRAIN = {"train", "training"}
_TEST = {"test", "testing", "eval", "evaluation", "heldout", "held-out", "held_out"}
_VALIDATION = {"val", "valid", "validation", "dev", "development"}


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


def own_split(records: Sequence[CFPRecord]) -> tuple[dict[int, str], str]:
    """("train", "test" or "validation" by the position of each record, a remark) as the records' own column `split` has it.

    Readers give the records of files and folders such a column too. Empty, with the reason as the remark, where it says other things, or
    does not tell training from test; empty and no remark where there is no such column.
    """
    column = next((name for record in records[:1] for name in record.metadata if name.strip().lower() == SPLIT_COLUMN), None)
    if column is None:
        return {}, ""
    kinds: dict[int, str] = {}
    unknown: dict[str, None] = {}
    for position, record in enumerate(records):
        said = record.metadata.get(column, "").strip().lower()
        kind = "train" if said in _TRAIN else "test" if said in _TEST else "validation" if said in _VALIDATION else None
        if kind is None:
            unknown[said] = None
        else:
            kinds[position] = kind
    if unknown:
        shown = ", ".join(repr(value[:20]) for value in list(unknown)[:3])
        return {}, f"the source's split is {shown}, neither train nor test, for some rows: rows are held out by their text instead"
    there = sorted(set(kinds.values()))
    if "train" not in there or len(there) < 2:
        return {}, f"the source's split is {' or '.join(there)} for all rows: rows are held out by their text instead"
    return kinds, ""


def split_as_told(records: Sequence[CFPRecord], kinds: Mapping[int, str], num_validation: int, num_train: int | None) -> TableSplit:
    """Hold out at most `num_validation` of the records that are not of "train", and train on the others, or on `num_train` of them.

    `kinds` says what each position is. Where there are test records, those of validation are left out. A training record whose prompt,
    after caption cleaning, is held out too is not trained on. Raises ValueError where nothing is left to train on, or too few.
    """
    wanted = "test" if "test" in kinds.values() else "validation"
    groups: dict[str, dict[str, list[int]]] = {"train": {}, wanted: {}}
    for position, record in enumerate(records):
        text = clean_caption(record.fine_prompt) or record.fine_prompt
        if kinds[position] in groups:
            groups[kinds[position]].setdefault(text, []).append(position)
    told = groups[wanted]
    held_out, count = [], 0
    for text in sorted(told, key=_keyed_hash):
        if count + len(told[text]) <= num_validation:
            held_out.append(told[text])
            count += len(told[text])
    if not held_out:
        raise ValueError(
            f"data.num_validation={num_validation} holds out nothing: the {len(told)} {wanted} prompts of the source's own split have "
            f"{min(map(len, told.values()))} rows or more each; raise it"
        )
    # Not under another name either: whatever the split says of it, a prompt that is tested is not trained on.
    seen_twice = sum(len(groups["train"][text]) for text in groups["train"] if text in told)
    train_groups = [positions for text, positions in groups["train"].items() if text not in told]
    train = [position for positions in sorted(train_groups, key=lambda own: own[0]) for position in positions]
    if not train:
        raise ValueError(f"the source's own split leaves nothing to train on: every training prompt is one of {wanted} too")
    if num_train is not None and num_train > len(train):
        raise ValueError(f"data.num_train={num_train} is more than the {len(train)} training records of the source's own split")
    train = train[:num_train]
    used = set(train)
    remarks = [f"held out by the source's own split: {count} of {sum(map(len, told.values()))} {wanted} rows"]
    if seen_twice:
        remarks.append(f"{seen_twice} training rows have a prompt that is held out, and are not trained on")
    distinct = {
        "train": np.array(
            [own[0] for _, own in sorted((_keyed_hash(t), g) for t, g in groups["train"].items()) if own[0] in used], np.int64
        ),
        "validation": np.array([own[0] for own in held_out], np.int64),
    }
    validation = np.array(sorted(position for own in held_out for position in own), dtype=np.int64)
    return TableSplit(np.array(sorted(train), dtype=np.int64), validation, distinct, "; ".join(remarks))


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

"""Runs one stage of a build on one shard: finds what is left, says what it will take, and does it group by group.

A group is what a model reads at once. Groups are cut from all prompts of the shard, done or not, so that a build that was killed
feeds its models the very batches of an undisturbed one and writes the same bytes.
"""

from __future__ import annotations

import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ablations.building_cfp.folder import BuildFolder
from ablations.building_cfp.ledger import Ledger, Shard, read_entries
from ablations.building_cfp.prompts import Prompt
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from datamodules.progress import duration


class Stage(ABC):
    """One stage: a frozen model that makes an entry of the ledger for each prompt."""

    name: str
    unit: str  # what an entry is, in the plural

    def __init__(self, folder: BuildFolder):
        self.folder = folder

    @abstractmethod
    def asked(self) -> dict[str, object]:
        """The settings that the user gave: known before the model is loaded."""

    @abstractmethod
    def load(self) -> dict[str, object]:
        """Load the model; the settings with what is only known now. Raises UserError where the model cannot be had."""

    @abstractmethod
    def bytes_each(self) -> float:
        """A guess, before the first group, of the disk that an entry takes."""

    @abstractmethod
    def groups(self, prompts: Sequence[Prompt]) -> list[list[Prompt]]:
        """The prompts in the groups in which the model reads them."""

    @abstractmethod
    def make(self, group: Sequence[Prompt], wanted: set[int]) -> list[dict]:
        """The entries of the prompts with the ids `wanted`; the model reads the whole group."""

    def is_done(self, entry: dict) -> bool:
        """Whether what an entry says is still there."""
        return True

    def bytes_of(self, entry: dict) -> float:
        """The disk that an entry took."""
        return self.bytes_each()

    def clean_up(self, shard: Shard) -> None:
        """Remove what a killed process of this shard left half-written."""
        return None


def run_stage(stage: Stage, shard: Shard, console: Console) -> None:
    """Do what is left of a shard. Raises UserError for other settings than the stage was begun with, or a disk without room."""
    folder = stage.folder
    prompts, _ = folder.read_prompts()
    mine = [prompt for prompt in prompts if shard.owns(prompt.id)]
    label = f"stage {stage.name}" + (f", shard {shard}" if shard.count > 1 else "")
    folder.check_settings(stage.name, stage.asked())
    with Ledger(folder.stages, stage.name, shard) as ledger:
        stage.clean_up(shard)
        done = {number for number, entry in read_entries(folder.stages, stage.name).items() if stage.is_done(entry)}
        left = {prompt.id for prompt in mine} - done
        if not left:
            console.say(f"{label}: all {len(mine)} prompts are done")
            return
        console.say(f"{label}: loading the model")
        folder.keep_settings(stage.name, stage.load())
        _say_beforehand(stage, label, len(mine), len(left), console)
        for _ in console.track(_entries(stage, ledger, label, mine, left, console), len(left), label):
            pass


def _entries(stage: Stage, ledger: Ledger, label: str, prompts: list[Prompt], left: set[int], console: Console) -> Iterator[dict]:
    """Makes the entries that are left, group by group, each group in the ledger before it is counted."""
    began = time.monotonic()
    finished = 0
    for group in stage.groups(prompts):
        wanted = {prompt.id for prompt in group} & left
        if not wanted:
            continue
        entries = stage.make(group, wanted)
        ledger.append(entries)
        if not finished and len(entries) < len(left):
            _say_by_first_group(stage, label, len(left), entries, time.monotonic() - began, console)
        finished += len(entries)
        yield from entries


def _say_beforehand(stage: Stage, label: str, total: int, left: int, console: Console) -> None:
    needed, free = stage.bytes_each() * left, shutil.disk_usage(stage.folder.path).free
    before = f", {total - left} done before" if left < total else ""
    console.say(f"{label}: {left} {stage.unit} to make{before}; about {_size(needed)} of disk, {_size(free)} are free")
    _require_room(stage, label, needed, free)


def _say_by_first_group(stage: Stage, label: str, left: int, made: list[dict], seconds: float, console: Console) -> None:
    each = sum(map(stage.bytes_of, made)) / len(made)
    seconds_each = seconds / len(made)
    console.say(
        f"{label}: about {duration(seconds_each * left)} and {_size(each * left)}, by the first {len(made)}: {seconds_each:.2g} s and "
        f"{_size(each)} each"
    )
    _require_room(stage, label, each * (left - len(made)), shutil.disk_usage(stage.folder.path).free)


def _require_room(stage: Stage, label: str, needed: float, free: int) -> None:
    if needed > free:
        raise UserError(
            f"{label}: the {stage.unit} need about {_size(needed)} and the disk of {stage.folder.path} has {_size(free)} free: "
            "free some, or build on a larger disk (what is done is kept)"
        )


def _size(count: float) -> str:
    """Bytes as people read them."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"

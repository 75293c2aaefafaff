"""What a refiner read in training, for runs and exports from before that was written down: its data is read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ablations.config import Config
from ablations.refiner import exported_refiner
from ablations.results import seen_words
from ablations.results.seen_words import SeenWords
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from lightning_modules.backbones.backbones import Backbones


def gather_again(config: Config, backbones: Backbones, digest: str, say: Callable[[str], object]) -> SeenWords:
    """The words and pieces of the training's texts, from the data that its config names; no picture is encoded.

    Raises UserError where the data cannot be read, or is not that of the training, whose digest is `digest`.
    """
    from ablations.cell.loading.data import data_settings
    from datamodules.cfp import CFPDataModule

    say("reading the data that it was trained on")
    try:
        data = CFPDataModule(data_settings(config), config.seed, backbones, say=lambda line: None)
        found = data.digest
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"the data of the training, data.source={config.data.source}, cannot be read: {error}") from error
    if found != digest:
        raise UserError(f"data.source={config.data.source} is not what was trained on: its digest is {found[:16]}, not {str(digest)[:16]}")
    return seen_words.gather(data.train_records, backbones.decoder.pieces_of, digest)


def add_to_export(folder: Path) -> None:
    """Write into an earlier export what its training read, and say so. Raises UserError as `gather_again` does."""
    exported = exported_refiner.read(folder)
    announce_libraries()
    from ablations.refiner.prompt_refiner import load_backbones_of

    digest = exported.description.get("digests", {}).get("data")
    seen = gather_again(exported.config, load_backbones_of(exported.config), digest, print)
    exported_refiner.write_seen_words(folder, seen)
    print(f"{folder}: {len(seen.words)} words and {len(seen.pieces)} pieces of {seen.num_fine} fine and {seen.num_coarse} coarse prompts")

"""A run folder as the source of a trained refiner: its config, its results, and the checkpoint that its training left.

Imports no heavy library, so that a mistake in a path is reported at once.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablations.config import Config, from_flat_dict
from ablations.results.checkpoints import asked_for
from ablations.results.looking import Damaged, Run, look_at_run
from ablations.results.run_folder import RunFolder
from ablations.results.seen_words import SeenWords, read
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_file, shown, within


@dataclass(frozen=True)
class TrainedRun:
    """`run` is the content of run.json; `checkpoint` holds the trained parameters."""

    folder: Path
    run: dict[str, Any]
    config: Config
    checkpoint: Path

    def seen_words(self) -> SeenWords | None:
        """Which words and pieces the training read; None for one from before that was written down. Raises UserError as `read` does."""
        return read(self.training)

    @property
    def training(self) -> Path:
        """The folder of its training, which arms of the same train keys share."""
        return self.checkpoint.parent.parent

    def __str__(self) -> str:
        return f"{self.run['arm']}/seed-{self.run['seed']}"


def find_trained_run(folder: str | os.PathLike[str]) -> TrainedRun:
    """The run in OUTPUT_DIR/ARM/seed-SEED, whose training lies in OUTPUT_DIR/trainings.

    The run need not have been evaluated, but its training must be finished. Raises UserError for a folder that is no run, a run.json that
    this version cannot read, and a training that is unfinished or not there.
    """
    folder = Path(folder)
    found = look_at_run(folder)
    if not isinstance(found, Run):
        seeds = [path.parent.name for path in within(folder, "seed-*/run.json")]
        hint = f"it is an arm: give one of its runs, as in {folder / seeds[0]}" if seeds else "give OUTPUT_DIR/ARM/seed-SEED"
        hint = f"{found.reason}: run the cell again" if isinstance(found, Damaged) else hint
        raise UserError(f"{shown(folder)} holds no run.json that can be read; {hint}")
    run = found.content
    try:
        config = from_flat_dict(run["config"])
    except UserError as error:
        raise UserError(f"{folder / 'run.json'} was written by another version: {error}") from error
    # The run may have been moved, or be read from another working directory: what counts is where it lies.
    output_dir = folder.resolve().parent.parent
    checkpoints = RunFolder(dataclasses.replace(config, output_dir=str(output_dir))).checkpoints
    checkpoint = asked_for(checkpoints, config.eval.checkpoint)
    if not is_file(checkpoint):
        raise UserError(
            f"the trained weights of {folder} are not in {checkpoint} (the run is {run['status']}): finish its training, "
            "or copy OUTPUT_DIR/trainings along with the run"
        )
    return TrainedRun(folder, run, config, checkpoint)

"""A cell of a second, as a command in this process: what generators break, run again and compare."""

from __future__ import annotations

import functools
import io
import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from helpers.small_sweeps import small

LONGEST_LINE = 300
CELL = (
    *("data.num_train=16", "data.num_validation=4", "train.batch_size=4", "loss.clip_bank=4", "train.max_steps=3", "train.log_every=1"),
    *("train.checkpoint_every=1", "train.validate_every=2", "train.validate_records=2", "train.check_records=4", "prompt_len=2"),
    *("eval.num_prompts=1", "eval.max_new_tokens=2", "eval.text_prompts=2", "eval.controls=false", "trainer.progress=plain"),
)


def arguments(output_dir: Path, *further: str) -> list[str]:
    """The cell's arguments, on random networks."""
    return small(*CELL, *further, f"output_dir={output_dir}")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it printed and logged."""

    code: int
    said: str

    def problem(self, codes: tuple[int, ...] = (0,)) -> str | None:
        """What is wrong with how it ended: another exit code, a traceback, or an error that is more than a line."""
        if self.code not in codes:
            return f"exit code {self.code}: {self.said[-300:]!r}"
        if "Traceback" in self.said:
            return f"a traceback: {self.said[-300:]!r}"
        errors = [line for line in self.said.splitlines() if line.startswith("error: ")]
        if self.code and len(errors) != 1:
            return f"{len(errors)} lines of errors: {self.said[-300:]!r}"
        return next((f"a line of {len(line)} characters: {line[:120]}..." for line in errors if len(line) > LONGEST_LINE + 7), None)


class SmallCell:
    """Runs the cell, with further settings; its networks are loaded once."""

    def __init__(self, *settings: str) -> None:
        from ablations.cell.shared import Shared
        from ablations.config import parse

        self._settings = settings
        self._kept = Shared()
        self._kept.backbones(parse(arguments(Path("unused"), *settings)))

    @property
    def backbones(self):
        return self._kept._backbones

    def run(self, output_dir: Path, *further: str, before: Callable[[object], None] = lambda stop: None) -> Ended:
        """The command `ablations.run` with the cell's arguments; `before(stop)` may ask it to stop. An unexpected error is raised."""
        from ablations.cell.cell import run_cell
        from ablations.cell.shared import Shared
        from ablations.config import parse
        from ablations.runtime.command_line import OneLineParser, run_command

        shared = Shared()
        shared._backbones, shared._choice = self._kept._backbones, self._kept._choice

        def work(config, stop) -> int:
            before(stop)
            run_cell(config, stop, shared)
            return 0

        said = io.StringIO()
        handler = logging.StreamHandler(said)
        logging.getLogger("ablations").addHandler(handler)
        try:
            with redirect_stdout(said), redirect_stderr(said):
                words = arguments(output_dir, *self._settings, *further)
                code = run_command(OneLineParser("run", words=parse), work, words, stoppable=False)
        finally:
            logging.getLogger("ablations").removeHandler(handler)
        return Ended(code, said.getvalue())

    def finished(self, output_dir: Path) -> Path:
        """The run folder of a cell that was run to its end, OUTPUT_DIR/ARM/seed-0."""
        assert self.run(output_dir).problem() is None
        return next(output_dir.glob("tiny-*/seed-0"))

    def stopped(self, output_dir: Path) -> None:
        """Leaves what a training leaves that is asked to stop after its first step, and does so after the second."""
        from ablations.cell.training import fit

        save = fit._Watch._save

        def stopping(watch, trainer, name: str, weights_only: bool = False) -> None:
            save(watch, trainer, name, weights_only)
            watch._stop.requested = True

        fit._Watch._save = stopping
        try:
            ended = self.run(output_dir)
        finally:
            fit._Watch._save = save
        assert ended.code == 143, ended


@functools.cache
def small_cell(*settings: str) -> SmallCell:
    """The one of this process with these settings in place of its own."""
    return SmallCell(*settings)


@functools.cache
def _finished() -> tempfile.TemporaryDirectory:
    folder = tempfile.TemporaryDirectory(prefix="small-cell-")
    small_cell().finished(Path(folder.name))
    return folder


def copy_of_finished(output_dir: Path) -> Path:
    """A copy of the output folder of a cell that was run to its end, once in this process; returns it."""
    return Path(shutil.copytree(_finished().name, output_dir))


def forget_cells(output_dir: Path) -> None:
    """Remove what cells left, so that they are run again; trainings and caches stay."""
    for folder in output_dir.glob("tiny-*"):
        shutil.rmtree(folder)

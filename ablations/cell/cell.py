"""One cell, end to end: load, train, check, refine, draw, score, and leave behind what came of it.

Each stage is a folder beside this file, and knows no later one; what a stage gives is what the next one takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ablations.cell.checking.check import check
from ablations.cell.drawing.draw import draw
from ablations.cell.lives import crew_of
from ablations.cell.loading.device import require_device
from ablations.cell.loading.load import load
from ablations.cell.on_the_way import grids_on_the_way
from ablations.cell.processes.group import threads_of
from ablations.cell.refining.refine import Sources, refine, seen_by
from ablations.cell.scoring.grid import grid_rows
from ablations.cell.scoring.score import require_metrics, require_sentences, score, scorer_for
from ablations.cell.scoring.scorer import CellScores
from ablations.cell.scoring.summary import summary_of
from ablations.cell.screen import show_result
from ablations.cell.shared import Shared
from ablations.cell.training.train import train
from ablations.cell.training.trained import Trained
from ablations.cell.work import Work
from ablations.config import Config, to_flat_dict
from ablations.config.names import tags_of
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.figures.diversity_grid import draw_grid
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing, drawn, read_drawings, read_scores
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import STOP_TIMEOUT, Asked, Tracker
from ablations.runtime.console import Console
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import whole_file
from ablations.runtime.stopping import Preempted, StopRequest
from datamodules.feature_cache.cache import DamagedFeaturesError

# What a run in W&B is of: its job type there.
CELL = "cell"


def run_cell(config: Config, stop: StopRequest, shared: Shared | None = None, console: Console | None = None) -> dict:
    """Run one cell and return its metrics; a finished one is not run again unless `force` is set.

    `shared` is what the cells of this process share; `console` says what happens, as trainer.progress asks if it is None.
    Raises CellBusy where another process runs it, UserError for data that cannot be used, Preempted after a signal, and whatever
    else goes wrong, each time with run.json saying so.
    """
    shared = shared or Shared()
    console = console or Console(config.trainer.progress)
    folder = RunFolder(config)
    with crew_of(config, console) as crew, folder.lock():
        if folder.is_finished() and not config.force:
            console.say(f"{folder} is finished already (force=true runs it again)")
            metrics = folder.read().get("metrics") or {}
            if os.environ.get("WANDB_SWEEP_ID"):
                _track_again(config, folder, metrics)
            show_result(console, folder, metrics, config)
            return metrics
        is_anew = folder.is_finished()
        torch.set_num_threads(threads_of(config, shared.threads))
        folder.start(threads=torch.get_num_threads())
        tracker = Tracker()
        try:
            _start(tracker, config, folder, is_anew)
            metrics = _run(Work(config, folder, console, tracker, stop, crew), shared)
        except Preempted as preempted:
            where = str(preempted)
            _close(console, tracker, lambda: folder.preempted(where), preempted.exit_code, STOP_TIMEOUT)
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            _close(console, tracker, lambda: folder.fail(reason), 1)
            raise
        # The cell has ended by now: what is shown of it, or cannot be, changes nothing.
        try:
            show_result(console, folder, metrics, config)
        finally:
            tracker.finish(exit_code=0)
        return metrics


def _start(tracker: Tracker, config: Config, folder: RunFolder, is_anew: bool = False) -> None:
    asked = config.wandb
    name, group = asked.name or str(folder), asked.group or folder.arm
    tracker.start(
        to_flat_dict(config), folder.path, Asked(name, group, asked.project, asked.entity, asked.mode, is_anew, CELL, tags_of(config))
    )


def _track_again(config: Config, folder: RunFolder, metrics: dict) -> None:
    """A W&B agent gave this cell out although it was finished before: its sweep gets the results all the same."""
    tracker = Tracker()
    _start(tracker, config, folder)
    if folder.diversity_grid.exists():
        drawings, pictures = read_drawings(folder.prompts)
        rows = grid_rows(drawings, pictures, read_scores(folder.scores), config.eval.grid_prompts)
        tracker.log_grid(folder.diversity_grid, rows)
    tracker.summary(metrics)
    tracker.finish(exit_code=0)


def _close(console: Console, tracker: Tracker, write_status: Callable[[], None], exit_code: int, within: float | None = None) -> None:
    """Write how the cell ended and close the W&B run; a full disk must not hide why it ended."""
    try:
        write_status()
    except RunFolderError as error:
        console.say(f"run.json could not be written: {error}")
    finally:
        tracker.finish(exit_code, within)


def _run(work: Work, shared: Shared) -> dict:
    """The stages, in order; returns the cell's metrics. Raises UserError for features that were damaged since they were made."""
    try:
        return _stages(work, shared)
    except DamagedFeaturesError as damaged:
        # A process that loads data says more than its last line, which is the error's own.
        raise UserError(str(damaged).splitlines()[-1].removeprefix(f"{damaged.__class__.__module__}.DamagedFeaturesError: ")) from damaged


def _stages(work: Work, shared: Shared) -> dict:
    work.console.say(f"cell {work.folder}, in {work.folder.path}")
    require_device(work.config)
    further = require_metrics(work)
    loaded = load(work, shared)
    require_sentences(work, loaded.backbones)
    trained = train(work, loaded, grids_on_the_way(work, loaded))
    check(work, loaded)
    if not loaded.prompts:
        return leave_behind(work, trained, None)
    stores = shared.stores(work.config, loaded.backbones)
    drawings = refine(work, Sources(loaded.prompts, loaded.module, loaded.at_step_0, loaded.data.known_phrases, seen_by(work)))
    pictures = draw(work, loaded.module, drawings, stores.pictures)
    scorer = scorer_for(work, loaded.module, stores.scores, further)
    scores = score(work, scorer, loaded.prompts, drawings, pictures)
    return leave_behind(work, trained, Evaluated(drawings, pictures, scores, stores.reused))


@dataclass(frozen=True)
class Evaluated:
    """What refining, drawing and scoring gave: the files of the drawings that are drawn, and how many were found rather than made."""

    drawings: Sequence[Drawing]
    pictures: PictureFiles
    scores: CellScores
    reused: dict[str, int]


def leave_behind(work: Work, trained: Trained, evaluated: Evaluated | None) -> dict:
    """Diversity grid, W&B's summary and a finished run.json; returns the cell's metrics."""
    metrics: dict = {"training": {"steps": trained.steps}}
    reused: dict = {"training": trained.reused}
    if evaluated is not None:
        if work.config.eval.grid_prompts:
            _leave_grid(work, evaluated)
        metrics |= _means(work.config, evaluated)
        reused |= evaluated.reused
    work.tracker.summary(metrics)
    work.folder.finish(metrics, work.timings.seconds, reused=reused)
    return metrics


def _leave_grid(work: Work, evaluated: Evaluated) -> None:
    config, folder = work.config, work.folder
    rows = grid_rows(evaluated.drawings, evaluated.pictures, evaluated.scores.table, config.eval.grid_prompts)
    with whole_file(folder.diversity_grid) as aside:
        draw_grid(rows, aside, title=f"{folder.arm}, seed {folder.seed}", subtitle=TINY_WORLD_NOTE if config.profile == "tiny" else "")
    work.tracker.log_grid(folder.diversity_grid, rows)


def _means(config: Config, evaluated: Evaluated) -> dict:
    num_prompts = len({drawing.prompt_id for drawing in drawn(evaluated.drawings)})
    means = summary_of(evaluated.scores.table, num_prompts, config.eval.num_candidates)
    unavailable = dict(evaluated.scores.unavailable)
    return means | ({"unavailable": unavailable} if unavailable else {})

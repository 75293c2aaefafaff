"""One cell, end to end: data, training, refinement, pictures, scores, diversity grid, run.json."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch

from ablations.cell.drawing.draw import draw, save_pictures
from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of, require_precision
from ablations.cell.loading.module import build_module
from ablations.cell.refining.refine import plan_drawings
from ablations.cell.scoring.further import FurtherMetrics, further_metrics
from ablations.cell.scoring.grid import grid_rows
from ablations.cell.scoring.score import CellScores, score, sentences_for
from ablations.cell.scoring.score_store import ScoreStore
from ablations.cell.scoring.summary import summary_of
from ablations.cell.screen import show_result
from ablations.cell.shared import Workshop
from ablations.cell.training import rehearsal
from ablations.cell.training.fit import CURVES
from ablations.cell.training.train import train
from ablations.config import Config, to_flat_dict
from ablations.config.names import is_rehearsal
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.figures.diversity_grid import draw_grid
from ablations.figures.loss_curves import loss_curves
from ablations.metrics.base import NOT_AVAILABLE
from ablations.results.prompts_and_scores import prompt_line, read_drawings, read_scores, write_prompts, write_scores
from ablations.results.provenance import Timings
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import Tracker
from ablations.runtime.console import Console
from ablations.runtime.errors import RunFolderError, UserError
from ablations.runtime.files import whole_file, write_atomically
from ablations.runtime.stopping import Preempted, StopRequest
from datamodules.cfp import CFPDataModule
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


def run_cell(config: Config, stop: StopRequest, workshop: Workshop | None = None, console: Console | None = None) -> dict:
    """Run one cell and return its metrics; a finished one is not run again unless `force` is set.

    `workshop` holds what the cells of this process share; `console` says what happens, as trainer.progress asks if it is None.
    Raises CellBusy where another process runs it, UserError for data that cannot be used, Preempted after a signal, and whatever
    else goes wrong, each time with run.json saying so.
    """
    workshop = workshop or Workshop()
    console = console or Console(config.trainer.progress)
    folder = RunFolder(config)
    with folder.lock():
        if folder.is_finished() and not config.force:
            console.say(f"{folder} is finished already (force=true runs it again)")
            run = folder.read()
            if os.environ.get("WANDB_SWEEP_ID"):
                _track_again(config, folder, run["metrics"])
            show_result(console, folder, run["metrics"], config)
            return run["metrics"]
        torch.set_num_threads(config.trainer.threads or workshop.threads)
        folder.start(threads=torch.get_num_threads())
        tracker = Tracker()
        try:
            _start(tracker, config, folder)
            metrics = _run(config, folder, workshop, console, tracker, stop)
        except Preempted as preempted:
            where = str(preempted)
            _close(console, tracker, lambda: folder.preempted(where), preempted.exit_code)
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            _close(console, tracker, lambda: folder.fail(reason), 1)
            raise
        tracker.finish(exit_code=0)
        return metrics


def _start(tracker: Tracker, config: Config, folder: RunFolder) -> None:
    tracker.start(
        to_flat_dict(config),
        folder.path,
        name=config.wandb.name or str(folder),
        group=config.wandb.group or folder.arm,
        project=config.wandb.project,
        entity=config.wandb.entity,
        mode=config.wandb.mode,
    )


def _track_again(config: Config, folder: RunFolder, metrics: dict) -> None:
    """A W&B agent gave this cell out although it was finished before: its sweep gets the results all the same."""
    tracker = Tracker()
    _start(tracker, config, folder)
    if folder.diversity_grid.exists():
        drawings, images = read_drawings(folder.prompts)
        scores = CellScores(read_scores(folder.scores), np.empty((0, 0)))
        tracker.log_grid(folder.diversity_grid, grid_rows(drawings, images, scores, config.eval.grid_prompts))
    tracker.summary(metrics)
    tracker.finish(exit_code=0)


def _close(console: Console, tracker: Tracker, write_status: Callable[[], None], exit_code: int) -> None:
    """Write how the cell ended and close the W&B run; a full disk must not hide why it ended."""
    try:
        write_status()
    except RunFolderError as error:
        console.say(f"run.json could not be written: {error}")
    finally:
        tracker.finish(exit_code=exit_code)


def _run(config: Config, folder: RunFolder, workshop: Workshop, console: Console, tracker: Tracker, stop: StopRequest) -> dict:
    timings, reused = Timings({}), {}
    console.say(f"cell {folder}, in {folder.path}")
    device = device_of(config)
    require_precision(config, device)
    further = further_metrics(config) if config.eval.num_prompts else None
    for name, why in further.required.unavailable.items() if further else ():
        console.say(f"metric {name}: {NOT_AVAILABLE}: {why}")
    with timings.stage("backbones"):
        try:
            backbones = workshop.backbones(config)
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        digest = backbones.digest
        if config.data.image_size != backbones.text_to_image.image_size:
            size = backbones.text_to_image.image_size
            raise UserError(f"data.image_size={config.data.image_size}, but the UNet was trained for {size} px: set data.image_size={size}")
        backbones.to(device)
        module = build_module(config, backbones)
        if backbones.commits:
            folder.record(commits=backbones.commits)
        if is_rehearsal(config):
            _rehearsal_begins(folder, console, module)
    stop.check("loading the backbones")
    with timings.stage("data"):
        try:
            data = build_data(config, folder, backbones, module, console.say)
            workshop.read_records(config, data)
            data.setup("fit")
            epoch = data.batches_per_epoch
            # Before the training, so that a mistake here costs no training.
            count = config.eval.num_prompts
            prompts = data.eval_prompts("test", count, config.eval.coarse_length) if count else []
        except (ValueError, FileNotFoundError) as error:
            raise UserError(str(error)) from error
        console.say(f"data: {epoch} batches an epoch, {len(prompts)} evaluation prompts")
        folder.record(digests={"data": data.digest, "weights": digest})
        if prompts and (problem := sentences_for(config, backbones).problem):
            console.say(f"metric sentence_similarity: {NOT_AVAILABLE}: {problem}")
    if is_rehearsal(config):
        _rehearsal_of_gradients(config, folder, console, module, data)
    with folder.training_lock(say=console.say), timings.stage("training"):
        training = train(config, folder, module, data, console, tracker, stop)
    if is_rehearsal(config) and not training["reused"]:
        seconds, peak = training["seconds"] / training["steps"], rehearsal.peak_memory(device)
        console.say(f"rehearsal: {seconds:.1f} s a step, peak memory {rehearsal.shown_memory(peak)}")
        folder.record(seconds_per_step=seconds, peak_memory_gb=peak)
    metrics: dict = {"training": {"steps": training["steps"]}}
    reused["training"] = training["reused"]
    curves = folder.training_path / CURVES
    if curves.exists():
        write_atomically(folder.metrics_csv, curves.read_bytes())
        with whole_file(folder.path / "loss_curves.png") as aside:
            loss_curves(folder.metrics_csv, aside, title=f"{folder.train_id}, seed {folder.seed}")
    if prompts:
        pictures, known_scores = stores = workshop.stores(config, backbones)
        metrics |= _evaluate(config, folder, backbones, module, prompts, stores, further, console, tracker, stop, timings)
        reused |= {"pictures": pictures.reused if pictures else 0, "scores": known_scores.reused}
    tracker.summary(metrics)
    folder.finish(metrics, timings.seconds, reused=reused)
    show_result(console, folder, metrics, config)
    return metrics


def _rehearsal_begins(folder: RunFolder, console: Console, module: PromptRefinerModule) -> None:
    parts = rehearsal.parameters_by_part(module)
    folder.record(rehearsal=True, parameters=parts)
    console.say("rehearsal: random weights at full size, T5's pieces made up; no score of it means anything, and no table takes it in")
    console.table(rehearsal.parameter_table(parts))


def _rehearsal_of_gradients(config: Config, folder: RunFolder, console: Console, module: PromptRefinerModule, data: CFPDataModule) -> None:
    norms = rehearsal.gradient_norms(module, data, config.train.precision)
    for term, parts in norms.items():
        console.say(f"gradient of {term}: " + ", ".join(f"{norm:.3g} at {part}" for part, norm in parts.items()))
    folder.record(gradient_norms=norms)


def _evaluate(
    config: Config,
    folder: RunFolder,
    backbones: Backbones,
    module: PromptRefinerModule,
    prompts: list[EvalPrompt],
    stores: tuple[PictureStore | None, ScoreStore],
    further: FurtherMetrics | None,
    console: Console,
    tracker: Tracker,
    stop: StopRequest,
    timings: Timings,
) -> dict:
    module.to(backbones.text_to_image.device).eval()
    with timings.stage("refining"):
        console.say(f"refining {len(prompts)} prompts, {config.eval.num_candidates} candidates each")

        def untrained() -> PromptRefinerModule:
            return build_module(config, backbones).to(module.device).eval()

        drawings = plan_drawings(module, untrained, prompts, config.prompt_len, config.eval, config.seed)
    stop.check("refining")
    with timings.stage("drawing"):
        images = draw(backbones, drawings, config.eval, console.track, lambda: stop.check("drawing"), module.text_encoder, stores[0])
        save_pictures(folder.path, drawings, images)
    write_prompts(folder.prompts, [prompt_line(drawing) for drawing in drawings])
    with timings.stage("scoring"):
        by = stores[1], further, sentences_for(config, backbones)
        scores = score(backbones, prompts, drawings, images, console.say, lambda: stop.check("scoring"), *by)
    write_scores(folder.scores, scores.table)
    if config.eval.grid_prompts:
        rows = grid_rows(drawings, images, scores, config.eval.grid_prompts)
        with whole_file(folder.diversity_grid) as aside:
            draw_grid(rows, aside, title=f"{folder.arm}, seed {folder.seed}", subtitle=TINY_WORLD_NOTE if config.profile == "tiny" else "")
        tracker.log_grid(folder.diversity_grid, rows)
    summary = summary_of(scores.table, len(prompts), config.eval.num_candidates)
    return summary | ({"unavailable": dict(scores.unavailable)} if scores.unavailable else {})

"""The second stage: one training, Lightning's Trainer around the prompt refiner, resumable after any step.

A training is shared by every arm with the same train keys; `results.checkpoints` says what its files are. What a step does depends on its
number and the seed, not on Lightning's loop counters: the data module starts at the batch that the step count says. Several processes share
each batch out (`ablations.cell.processes.crew`) and do together what one does alone, so a training may go on with another number of
them.
"""

from __future__ import annotations

import time
from pathlib import Path

from ablations.cell.loading.load import Loaded
from ablations.cell.processes.group import check_devices, uses_ddp
from ablations.cell.training import rehearsal
from ablations.cell.training.checkpoints import DamagedCheckpoint, read_checkpoint, set_aside
from ablations.cell.training.fit import CURVES, Look, fit, usable_curves
from ablations.cell.training.trained import Trained
from ablations.cell.work import Work
from ablations.config.names import is_rehearsal
from ablations.figures.loss_curves import loss_curves
from ablations.results import seen_words
from ablations.results.checkpoints import FINAL, LAST, asked_for
from ablations.runtime.errors import UserError
from ablations.runtime.files import drop, whole_file, write_atomically
from ablations.runtime.files import set_aside as set_aside_file
from datamodules.cfp import CFPDataModule
from lightning_modules.prompt_refiner import PromptRefinerModule


def train(work: Work, loaded: Loaded, look: Look | None = None) -> Trained:
    """Train the loaded refiner to the end, or take the finished training of another arm; its curves go to the run folder.

    `look` is called every `train.grid_every` steps of what is trained here. Waits while another process runs the same training. Raises as
    `finish_training` does.
    """
    if is_rehearsal(work.config):
        rehearsal.show_gradients(work, loaded)
    with work.folder.training_lock(say=work.console.say), work.timings.stage("training"):
        trained = finish_training(work, loaded.module, loaded.data, look)
        leave_seen_words(work, loaded.module, loaded.data)
    if is_rehearsal(work.config):
        rehearsal.show_costs(work, loaded, trained)
    curves = work.folder.training_path / CURVES
    if usable_curves(curves, work.console.say):
        write_atomically(work.folder.metrics_csv, curves.read_bytes())
        with whole_file(work.folder.path / "loss_curves.png") as aside:
            loss_curves(work.folder.metrics_csv, aside, title=f"{work.folder.train_id}, seed {work.folder.seed}")
    return trained


def leave_seen_words(work: Work, module: PromptRefinerModule, data: CFPDataModule) -> None:
    """Write which words and pieces the training's texts have into its folder, unless it is there already and whole."""
    folder = work.folder.training_path
    try:
        found = seen_words.read(folder)
    except UserError as error:
        aside = set_aside_file(folder / seen_words.FILE)
        work.console.say(f"training: {str(error).partition(': ')[0]}; it is set aside as {aside.name} and made again")
        found = None
    if found is None or found.data != data.digest:
        seen_words.write(folder, seen_words.gather(data.train_records, module.backbones.decoder.pieces_of, data.digest))


def finish_training(work: Work, module: PromptRefinerModule, data: CFPDataModule, look: Look | None = None) -> Trained:
    """Train `module` from where its training stands to the end; a finished one is loaded.

    A checkpoint that was made from other data or other frozen weights is not used. The caller holds the training's lock. Raises
    Preempted, with a checkpoint on disk, after a signal, and FloatingPointError, naming the term, before an update with a loss that
    is not finite. In several processes this one is rank 0 of the work's crew.
    """
    config, folder, say = work.config, work.folder, work.console.say
    final, last = folder.checkpoints / FINAL, folder.checkpoints / LAST
    made_from = {"data": data.digest, "weights": module.backbones.digest}
    for path in (final, last):
        try:
            if path.exists() and read_checkpoint(path)["made_from"] != made_from:
                say(f"training: {path} was made from other data or weights, so it is not used")
                drop(path)
        except DamagedCheckpoint as damaged:
            set_aside(path, damaged, say)
    if final.exists():
        say(f"training: {folder.train_id}/seed-{folder.seed} is finished already, its weights are used")
        return Trained(load_trained(module, asked_for(folder.checkpoints, config.eval.checkpoint)), 0.0, reused=True)
    crew = work.crew
    check_devices(config, crew.place)
    resume = last if last.exists() else None
    if resume is not None:
        say(f"training: going on from {resume}")
    started = time.monotonic()
    place = crew.place if uses_ddp(config) else None
    own = lambda: fit(work, module, data, made_from, resume, place, look)  # noqa: E731
    steps = crew.do("training", own, grouped=True, made_from=made_from, resume=resume is not None) if place else own()
    if config.eval.checkpoint != "last":
        steps = load_trained(module, asked_for(folder.checkpoints, config.eval.checkpoint))
        say(f"training: evaluating step {steps} (eval.checkpoint={config.eval.checkpoint})")
    return Trained(steps, time.monotonic() - started, reused=False)


def load_trained(module: PromptRefinerModule, checkpoint: Path) -> int:
    """Load the trained parameters of a checkpoint, all of them and no others; returns its number of steps."""
    content = read_checkpoint(checkpoint)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])
    return int(content["global_step"])

"""One training: Lightning's Trainer around the prompt refiner, resumable after any step.

A training is shared by every arm with the same train keys. `last.ckpt` is the newest checkpoint, `final.ckpt` the end;
both hold trained parameters and optimiser state alone. What a step does depends on its number and the seed, not on
Lightning's loop counters: the data module starts at the batch that the step count says. Several processes share each batch out
(`ablations.cell.training.gathering`) and do together what one does alone, so a training may go on with another number of them.
"""

from __future__ import annotations

import time

from ablations.cell.training.fit import FINAL, LAST, fit, load_trained, read_checkpoint
from ablations.cell.training.gathering import gathered
from ablations.cell.training.place import find_place
from ablations.cell.training.process_group import Plan, check_devices, uses_ddp
from ablations.config import Config
from ablations.results.run_folder import RunFolder
from ablations.results.tracking import Tracker
from ablations.runtime.console import Console
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from datamodules.cfp import CFPDataModule
from lightning_modules.prompt_refiner import PromptRefinerModule


def train(
    config: Config,
    folder: RunFolder,
    module: PromptRefinerModule,
    data: CFPDataModule,
    console: Console,
    tracker: Tracker,
    stop: StopRequest,
) -> dict[str, float]:
    """Train `module` to the end, or take the finished training of another arm; returns {"steps", "seconds", "reused"}.

    A checkpoint that was made from other data or other frozen weights is not used. The caller holds the training's lock. Raises
    Preempted, with a checkpoint on disk, after a signal, and FloatingPointError, naming the term, before an update with a loss that
    is not finite. In several processes this one is rank 0.
    """
    final, last = folder.checkpoints / FINAL, folder.checkpoints / LAST
    made_from = {"data": data.digest, "weights": module.backbones.digest}
    for path in (final, last):
        if path.exists() and read_checkpoint(path)["made_from"] != made_from:
            console.say(f"training: {path} was made from other data or weights, so it is not used")
            path.unlink()
    if final.exists():
        console.say(f"training: {folder.train_id}/seed-{folder.seed} is finished already, its weights are used")
        return {"steps": load_trained(module, final), "seconds": 0.0, "reused": True}
    place = find_place(config)
    if place.rank:
        raise UserError(f"this is {place} of a training that srun started: only python -m ablations.run can be started that way")
    check_devices(config)
    resume = last if last.exists() else None
    if resume is not None:
        console.say(f"training: going on from {resume}")
    started = time.monotonic()
    if uses_ddp(config):
        with gathered(config, place, Plan(True, made_from, resume is not None), console.say):
            steps = fit(config, folder, module, data, console, tracker, stop, made_from, resume, place)
    else:
        steps = fit(config, folder, module, data, console, tracker, stop, made_from, resume, None)
    return {"steps": steps, "seconds": time.monotonic() - started, "reused": False}

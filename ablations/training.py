"""One training: Lightning's Trainer around the prompt refiner, resumable after any step.

A training is shared by every arm with the same train keys. `last.ckpt` is the newest checkpoint, `final.ckpt` the end;
both hold trained parameters and optimiser state alone. What a step does depends on its number and the seed, not on
Lightning's loop counters: the data module starts at the batch that the step count says.
"""

from __future__ import annotations

import csv
import logging
import time
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch

from ablations.config import Config
from ablations.console import Console
from ablations.run_folder import RunFolder, whole_file
from ablations.stopping import StopRequest
from ablations.tracking import Tracker
from datamodules.cfp import CFPDataModule
from lightning_modules.prompt_refiner import PromptRefinerModule

FINAL, LAST, CURVES = "final.ckpt", "last.ckpt", "metrics.csv"


class _Watch(pl.Callback):
    """Progress, metrics.csv and W&B, checkpoints, and the stop at a signal, at the end of each optimiser step."""

    def __init__(self, config: Config, folder: RunFolder, console: Console, tracker: Tracker, stop: StopRequest, total_steps: int):
        self._config, self._folder, self._console, self._tracker, self._stop = config, folder, console, tracker, stop
        self._total = total_steps
        self._rows: list[dict[str, float]] = []
        self._seen = -1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._first = self._seen = trainer.global_step
        curves = self._folder.training_path / CURVES
        self._rows = [row for row in read_curves(curves) if row["step"] <= self._first]
        self._started = time.monotonic()
        self._progress = self._console.progress() if self._console.mode == "bar" else None
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("training", total=self._total, completed=self._first, note="")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_index: int) -> None:
        step = trainer.global_step
        if step == self._seen:  # a micro-batch of an accumulated step
            return
        self._seen = step
        every = self._config.train.log_every
        if step % every == 0 or step == self._total:
            self._report(trainer, step)
        if step % self._config.train.checkpoint_every == 0 or self._stop.requested:
            self._save(trainer, LAST)
        self._stop.check(f"training, step {step}")

    def _report(self, trainer: pl.Trainer, step: int) -> None:
        values = {name.removeprefix("train/"): float(value) for name, value in trainer.callback_metrics.items()}
        self._rows.append({"step": step, **{f"train/{name}": value for name, value in values.items()}})
        self._tracker.log({f"train/{name}": value for name, value in values.items()}, step=step)
        pace = (time.monotonic() - self._started) / (step - self._first)
        terms = "  ".join(f"{name} {value:.3f}" for name, value in values.items() if name == "loss" or name.startswith("l_"))
        if self._progress is not None:
            self._progress.update(self._task, completed=step, note=terms)
        elif step % (5 * self._config.train.log_every) == 0 or step == self._total:
            self._console.say(
                f"training: step {step}/{self._total}  {terms}  ({pace * 1000:.0f} ms a step, {pace * (self._total - step):.0f} s left)"
            )

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        self._write_curves()
        with whole_file(self._folder.checkpoints / name) as aside:
            trainer.save_checkpoint(aside)

    def _write_curves(self) -> None:
        if self._rows:
            write_curves(self._folder.training_path / CURVES, self._rows)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._close()
        self._save(trainer, FINAL)
        (self._folder.checkpoints / LAST).unlink(missing_ok=True)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if getattr(self, "_progress", None) is not None:
            self._progress.stop()


def read_curves(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [{name: float(value) for name, value in row.items() if value} | {"step": int(row["step"])} for row in csv.DictReader(stream)]


def write_curves(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows as CSV, whole or not at all."""
    with whole_file(path) as aside, aside.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), restval="")
        writer.writeheader()
        writer.writerows(rows)


def total_steps(config: Config, batches_per_epoch: int) -> int:
    """Optimiser steps of the training: the smaller of train.max_steps and what train.max_epochs come to."""
    limits = [config.train.max_steps] if config.train.max_steps is not None else []
    if config.train.max_epochs is not None:
        limits.append(max(1, config.train.max_epochs * batches_per_epoch // config.train.accumulate))
    return min(limits)


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

    The caller holds the training's lock. Raises Preempted, with a checkpoint on disk, after a signal, and
    FloatingPointError, naming the term, before an update with a loss that is not finite.
    """
    final, last = folder.checkpoints / FINAL, folder.checkpoints / LAST
    if final.exists():
        load_trained(module, final)
        console.say(f"training: {folder.train_id}/seed-{folder.seed} is finished already, its weights are used")
        return {"steps": int(torch.load(final, weights_only=True, map_location="cpu")["global_step"]), "seconds": 0.0, "reused": True}
    steps = total_steps(config, data.batches_per_epoch)
    # Lightning's hints about workers, loggers and unused features are meant for its own users.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    trainer = pl.Trainer(
        accelerator=config.trainer.accelerator,
        devices=config.trainer.devices,
        precision=config.train.precision,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=config.train.accumulate,
        gradient_clip_val=config.train.grad_clip or None,
        callbacks=[_Watch(config, folder, console, tracker, stop, steps)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        default_root_dir=folder.training_path,
    )
    resume = last if last.exists() else None
    if resume is not None:
        console.say(f"training: going on from {resume}")
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return {"steps": steps, "seconds": time.monotonic() - started, "reused": False}


def load_trained(module: PromptRefinerModule, checkpoint: Path) -> None:
    """Load the trained parameters of a checkpoint, all of them and no others."""
    content = torch.load(checkpoint, weights_only=True, map_location=module.device)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])

"""Lightning's fit around one arm: progress, curves, checkpoints, and the stop at a signal."""

from __future__ import annotations

import csv
import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from ablations.cell.loading.device import device_of
from ablations.cell.processes.group import JoinedDDP, batch_group, sees_its_own_device, sharing_of
from ablations.cell.processes.place import Place
from ablations.cell.training.checkpoints import in_background
from ablations.cell.work import Work
from ablations.config import Config
from ablations.results.checkpoints import FINAL, LAST, best_name, drop_all_but_best, kept_name, would_be_kept
from ablations.results.logged import LOSS, MEMORY, NORM, RATE, SKIPPED, SPEED, TRAIN, VALIDATION
from ablations.runtime.errors import one_line
from ablations.runtime.files import drop, is_as_written, set_aside, whole_file_with_digest
from ablations.runtime.stopping import Preempted
from datamodules.cfp import CFPDataModule
from lightning_modules.prompt_refiner import PromptRefinerModule

CURVES = "metrics.csv"
# What looks on at some steps, from outside: it is handed the module and the step, and changes nothing of either.
Look = Callable[[PromptRefinerModule, int], None]
# Steps between looks at the clock, which all processes take together.
_CLOCK_STEPS = 10


class _Watch(pl.Callback):
    """Progress, metrics.csv and W&B, checkpoints, and the stop at a signal, at the end of each optimiser step.

    Of several processes, rank 0 alone writes and speaks; the logged values are those of the whole batch in all of them.
    """

    def __init__(self, work: Work, total_steps: int, made_from: dict[str, str], watched: Sequence[dict] = (), look: Look | None = None):
        self._watched, self._look = watched, look
        self._config, self._folder, self._console = work.config, work.folder, work.console
        self._tracker, self._stop = work.tracker, work.stop
        self._total, self._made_from = total_steps, made_from
        self._reported, self._saved = (0, 0.0), 0.0
        self._gradient_norm: torch.Tensor | None = None
        self._rows: list[dict[str, float]] = []
        self._parts: list[dict[str, torch.Tensor]] = []
        self._seen = -1

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._stop.reclaim()
        self._first = self._seen = trainer.global_step
        curves = self._folder.training_path / CURVES
        # Those that a damaged file has lost are missed aloud.
        rows = usable_curves(curves, self._console.say)
        if self._first and not rows:
            self._console.say(f"training: {CURVES} has no rows of the first {self._first} steps")
        self._rows = [row for row in rows if row["step"] <= self._first]
        self._started = self._saved = time.monotonic()
        self._reported = (self._first, self._started)
        self._progress = self._console.progress() if self._console.mode == "bar" else None
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("training", total=self._total, completed=self._first, note="")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_index: int) -> None:
        self._parts.append(module.logged)
        step = trainer.global_step
        if step == self._seen:  # a micro-batch of an accumulated step
            return
        self._seen = step
        parts, self._parts = self._parts, []
        # A signal may have reached some of the processes only, and may come while this is being decided: it is decided once, for all.
        stopping = self._stop.requested
        if trainer.world_size > 1:
            stopping = trainer.strategy.reduce_boolean_decision(stopping, all=False)
        if stopping:
            self._stop.requested = True
        validated = self._validate(trainer, module) if self._is_time_to_validate(step) and trainer.is_global_zero else {}
        if validated or self._is_time_to_report(step):
            skipped = {TRAIN + SKIPPED: float(module.finite.skipped)} if self._config.train.precision == "16-mixed" else {}
            self._report(_means(parts) | self._rate(trainer) | validated | skipped, self._speed(trainer, step), step)
        if self._is_time_to_look(step) and trainer.is_global_zero and not stopping:
            self._look(module, step)
        self._keep(trainer, step, validated.get(VALIDATION + LOSS))
        if step == self._total:
            self._save(trainer, FINAL, weights_only=True)
        elif step % self._config.train.checkpoint_every == 0 or stopping or self._is_time_to_save(trainer, step):
            self._save(trainer, LAST)
        if stopping:
            self._stop.check(f"training, step {step}")

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        # Before clipping, and left on the device: it is read with the losses.
        if self._is_time_to_report(trainer.global_step + 1):
            gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
            self._gradient_norm = torch.nn.utils.get_total_norm(gradients) if gradients else None

    def _is_time_to_report(self, step: int) -> bool:
        return step % self._config.train.log_every == 0 or step == self._total

    def _is_time_to_save(self, trainer: pl.Trainer, step: int) -> bool:
        minutes = self._config.train.checkpoint_minutes
        if minutes is None or step % _CLOCK_STEPS:
            return False
        due = time.monotonic() - self._saved >= 60 * minutes
        return trainer.strategy.reduce_boolean_decision(due, all=False) if trainer.world_size > 1 else due

    def _rate(self, trainer: pl.Trainer) -> dict[str, float]:
        """Learning rate, and norm of the gradient before clipping."""
        found = {TRAIN + RATE: float(trainer.optimizers[0].param_groups[0]["lr"])}
        if self._gradient_norm is not None:
            found[TRAIN + NORM] = float(self._gradient_norm)
            self._gradient_norm = None
        return found

    def _speed(self, trainer: pl.Trainer, step: int) -> dict[str, float]:
        """Records a second since the last report, and the most memory of a GPU so far: for W&B alone, as no two runs have the same."""
        (reported, at), now = self._reported, time.monotonic()
        self._reported = (step, now)
        train = self._config.train
        found = {TRAIN + SPEED: (step - reported) * train.batch_size * train.accumulate / max(now - at, 1e-9)}
        if trainer.strategy.root_device.type == "cuda":
            found[TRAIN + MEMORY] = torch.cuda.max_memory_allocated(trainer.strategy.root_device) / 1e9
        return found

    def _is_time_to_validate(self, step: int) -> bool:
        return bool(self._watched) and self._is_validation_step(step)

    def _is_validation_step(self, step: int) -> bool:
        every = self._config.train.validate_every
        return bool(every) and (step % every == 0 or step == self._total)

    def _is_time_to_look(self, step: int) -> bool:
        """The last step's grid is the cell's own."""
        every = self._config.train.grid_every
        return self._look is not None and bool(every) and step % every == 0 and step < self._total

    def _validate(self, trainer: pl.Trainer, module: PromptRefinerModule) -> dict[str, float]:
        """The terms on the watched records, by val/l_NAME, at the same noise every time. The training hears nothing of it."""
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            rows = [module.compute_terms(trainer.strategy.batch_to_device(batch), alone=True)[0] for batch in self._watched]
        rows = [row | {"loss": module.total_loss(row)} for row in rows]
        names = list(rows[0])
        means = torch.stack([torch.stack([row[name].float() for name in names]) for row in rows]).mean(dim=0).tolist()
        return {VALIDATION + name: value for name, value in zip(names, means, strict=True)}

    def _keep(self, trainer: pl.Trainer, step: int, loss: float | None) -> None:
        """Keep this step's parameters where it is one to be kept, whatever comes later; every process takes part."""
        train, folder = self._config.train, self._folder.checkpoints
        if train.keep_every and step % train.keep_every == 0:
            self._save(trainer, kept_name(step), weights_only=True)
        if not train.keep_best or not self._is_validation_step(step):
            return
        # Only the process that looked knows.
        found = loss if loss is not None and would_be_kept(folder, loss, train.keep_best) else None
        found = trainer.strategy.broadcast(found) if trainer.world_size > 1 else found
        if found is not None:
            self._save(trainer, best_name(step, found), weights_only=True)

    def _report(self, logged: dict[str, float], speed: dict[str, float], step: int) -> None:
        self._rows.append({"step": step, **logged})
        self._tracker.log(logged | speed, step=step)
        values = {name.removeprefix(TRAIN): value for name, value in logged.items()}
        pace = (time.monotonic() - self._started) / (step - self._first)
        terms = "  ".join(f"{name} {value:.3f}" for name, value in values.items() if name == LOSS or name.startswith("l_"))
        if self._progress is not None:
            self._progress.update(self._task, completed=step, note=terms)
        elif step % (5 * self._config.train.log_every) == 0 or step == self._total:
            self._console.say(
                f"training: step {step}/{self._total}  {terms}  ({pace * 1000:.0f} ms a step, {pace * (self._total - step):.0f} s left)"
            )

    def _save(self, trainer: pl.Trainer, name: str, weights_only: bool = False) -> None:
        """Every process takes part; the first one writes, in the background."""
        if name == LAST:
            self._saved = time.monotonic()
        if trainer.is_global_zero:
            self._write_curves()
            if name.startswith("best"):
                drop_all_but_best(self._folder.checkpoints, self._config.train.keep_best - 1)
        trainer.save_checkpoint(self._folder.checkpoints / name, weights_only=weights_only)

    def _write_curves(self) -> None:
        if self._rows:
            write_curves(self._folder.training_path / CURVES, self._rows)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if getattr(self, "_progress", None) is not None:
            self._progress.stop()


def _means(parts: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """The logged values of an optimiser step as the means of its micro-batches'; the device is waited for once."""
    names = list(parts[0])
    rows = torch.stack([torch.stack([part[name] for name in names]) for part in parts]).tolist()
    return {name: sum(column) / len(parts) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def read_curves(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; none where there is no such file. Raises ValueError, one line, for one that is damaged."""
    if not path.exists():
        return []
    if not is_as_written(path):
        raise ValueError("its bytes are not those that were written")
    try:
        with path.open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        return [{name: float(value) for name, value in row.items() if value} | {"step": int(row["step"])} for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:  # half a row has as many errors as it has columns
        raise ValueError(one_line(error)[:100]) from error


def usable_curves(path: Path, say: Callable[[str], object]) -> list[dict[str, float]]:
    """`read_curves`, but a damaged file is set aside, and a line says so; it has no rows."""
    try:
        return read_curves(path)
    except ValueError as error:
        say(f"training: {path} is damaged ({error}): it is set aside as {set_aside(path).name}, and its rows are lost")
        return []


def write_curves(path: Path, rows: list[dict[str, float]]) -> None:
    """Write rows as CSV, whole or not at all, and the digest beside it."""
    with whole_file_with_digest(path) as aside, aside.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)


def total_steps(config: Config, batches_per_epoch: int) -> int:
    """Optimiser steps of the training: the smaller of train.max_steps and what train.max_epochs come to."""
    limits = [config.train.max_steps] if config.train.max_steps is not None else []
    if config.train.max_epochs is not None:
        limits.append(max(1, config.train.max_epochs * batches_per_epoch // config.train.accumulate))
    return min(limits)


def make_trainer(config: Config, steps: int, callbacks: list[pl.Callback], place: Place | None = None) -> pl.Trainer:
    """Lightning's Trainer for `steps` optimiser steps, without its own logging, checkpoints and progress.

    `place` is this process's among those of a DDP training, whose process group must be there; None: one device, no DDP. Whatever a
    cluster's variables say, Lightning's own handling of clusters is left out: we know the place, the signals are ours, and so are the
    checkpoints.
    """
    # Lightning's hints about workers, loggers and unused features are meant for its own users.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    several = place is not None and not sees_its_own_device(config, place)
    shared = sharing_of(config, place)
    if place is None:
        rank_zero_only.rank = 0  # Lightning took it from the variables of whatever started this process
    return pl.Trainer(
        accelerator=device_of(config).type,
        devices=config.trainer.devices if several else 1,
        num_nodes=config.trainer.num_nodes if place else 1,
        strategy=JoinedDDP(place) if place else "auto",
        precision=config.train.precision,
        max_steps=steps,
        max_epochs=-1,
        accumulate_grad_batches=shared.accumulate_each,
        gradient_clip_val=config.train.grad_clip or None,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        plugins=[in_background(), *([] if place else [LightningEnvironment()])],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
        # Nothing is written there; under SLURM Lightning would go on from any hpc_ckpt_N.ckpt that lies there.
        default_root_dir=os.devnull,
    )


def train_beside_rank_0(
    work: Work, module: PromptRefinerModule, data: CFPDataModule, made_from: dict[str, str], resume: bool, place: Place
) -> None:
    """This process's part of the training that rank 0 planned, as `work` that nobody hears of. Its process group must be there."""
    fit(work, module, data, made_from, work.folder.checkpoints / LAST if resume else None, place)


def fit(
    work: Work,
    module: PromptRefinerModule,
    data: CFPDataModule,
    made_from: dict[str, str],
    resume: Path | None,
    place: Place | None,
    look: Look | None = None,
) -> int:
    """Lightning's fit, from `resume` on; returns the number of steps that the training has in all. `look` is called every
    `train.grid_every` steps."""
    steps = total_steps(work.config, data.batches_per_epoch)
    if resume is None and module.afe is not None and module.afe.starts_from_pictures:
        module.start_afe(data.fitting_batches())
    looks = work.config.train.validate_every and not (place and place.rank)
    watched = data.watched_batches(work.config.train.validate_records) if looks else []
    module.made_from, module.logs = made_from, False
    data.rank, data.sharing = place.rank if place else 0, sharing_of(work.config, place)
    module.batch_group = batch_group(data.sharing, data.rank)
    trainer = make_trainer(work.config, steps, [_Watch(work, steps, made_from, watched, look)], place)
    # DDP waits for a gradient of every parameter in its buckets.
    without_gradient = module.parameters_without_gradient() if place else []
    for parameter in without_gradient:
        parameter.requires_grad_(False)
    try:
        with work.stop.held_back("training"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
            try:
                trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
            except SIGTERMException as signalled:
                # The signal came before the first step, while Lightning's handler was still in place.
                raise Preempted("training, before its first step") from signalled
        if not (place and place.rank):  # all is written by now
            drop(work.folder.checkpoints / LAST)
            drop_all_but_best(work.folder.checkpoints, work.config.train.keep_best)
    finally:
        module.batch_group = None
        for parameter in without_gradient:
            parameter.requires_grad_(True)
    return steps

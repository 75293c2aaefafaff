"""Lightning's step against the same step in a plain loop: what the trainer, its hooks and our callback cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import pytorch_lightning as pl
import torch

from ablations.benchmarking.timing import Timed, now
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of
from ablations.cell.loading.module import build_module
from ablations.cell.training.fit import make_trainer
from ablations.config import Config, parse
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


def compare_loops(backbones: Backbones, steps: int, repeats: int, check: Callable[[], None] = lambda: None) -> dict[str, Timed]:
    """Seconds of `steps` steps of the tiny world's default arm, by Lightning's trainer and by a loop, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        few = ("data.num_train=64", "eval.num_prompts=0", "train.validate_every=0")
        config = parse([f"output_dir={folder}", f"train.max_steps={steps}", *few])
        seconds: dict[str, list[float]] = {"lightning": [], "loop": []}
        for turn in range(repeats + 1):
            for name, run in (("lightning", _by_lightning), ("loop", _by_loop)):
                check()
                taken = run(config, backbones, steps)
                if turn:  # the first is to warm up
                    seconds[name].append(taken)
    return {name: Timed(tuple(values)) for name, values in seconds.items()}


def _ready(config: Config, backbones: Backbones):
    module = build_module(config, backbones)
    data = build_data(config, module, lambda line: None)
    data.setup("fit")
    device = device_of(config)
    backbones.to(device)
    return module.to(device), data, device


class _Clock(pl.Callback):
    """Notes the time after the first step and after the last, as the loop does: what starts and ends a fit is not a step's."""

    def __init__(self, clock: list[float], device: torch.device):
        self._clock, self._device = clock, device

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs, batch, batch_index: int) -> None:
        if batch_index == 0 or trainer.global_step == trainer.max_steps:
            self._clock.append(now(self._device))


def _by_lightning(config: Config, backbones: Backbones, steps: int) -> float:
    module, data, device = _ready(config, backbones)
    clock: list[float] = []
    module.logs = False  # as cells train
    trainer = make_trainer(config, steps, [_Clock(clock, device)])
    trainer.fit(module, datamodule=data)
    return clock[-1] - clock[0]


def _by_loop(config: Config, backbones: Backbones, steps: int) -> float:
    module, data, device = _ready(config, backbones)
    batches = iter(data.train_dataloader())
    optimizer, schedule = _optimizer_of(module, steps)
    started = 0.0
    for step in range(steps):
        if step == 1:
            started = now(device)
        batch = module.transfer_batch_to_device(next(batches), device, 0)
        terms, _ = module.compute_terms(batch)
        loss = module.total_loss(terms)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), config.train.grad_clip)
        optimizer.step()
        schedule.step()
    return now(device) - started


def _optimizer_of(module: PromptRefinerModule, steps: int):
    settings = module.optimizer_settings
    new = [*module.adapter.parameters(), *(module.afe.parameters() if module.afe is not None else ())]
    groups = [
        {"params": list(module.text_encoder.parameters()), "lr": settings.learning_rate},
        {"params": new, "lr": settings.learning_rate * settings.new_parts_lr_scale},
    ]
    fused = module.device.type in ("cpu", "cuda") or None
    optimizer = torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay, eps=settings.eps, fused=fused)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.rate_at(step, steps))

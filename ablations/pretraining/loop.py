"""One resumable, seeded training loop for every stage of the tiny backbones' pre-training."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

LossFunction = Callable[[int], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a stage trains: linear warm-up, a plateau, then a cosine to zero over the last `decay_share`.

    Before the decay the rate does not depend on `steps`: with a `decay_share` below 1 a stage can be lengthened while it runs.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 200
    decay_share: float = 1.0
    weight_decay: float = 0.01
    ema_decay: float | None = None
    save_every: int = 500
    log_every: int = 50

    def rate(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        decay_steps = max(1, round(self.decay_share * (self.steps - self.warmup_steps)))
        progress = max(0.0, step - (self.steps - decay_steps)) / decay_steps
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save_atomically(state: object, path: Path) -> None:
    """Write `state` with torch.save so that `path` always holds a whole file."""
    aside = path.with_suffix(".partial")
    torch.save(state, aside)
    os.replace(aside, path)


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors in half precision, tied weights once."""
    state = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    tied = {alias for alias, target in (getattr(network, "_tied_weights_keys", None) or {}).items() if alias != target}
    aside = path.with_suffix(".partial")
    save_file({name: value for name, value in state.items() if name not in tied}, aside)
    aside.chmod(0o644)
    os.replace(aside, path)


def train(name: str, modules: nn.Module, loss_of_step: LossFunction, schedule: Schedule, directory: Path, made_from: str = "") -> dict:
    """Train `modules` to `schedule.steps` and leave the final weights in it (the moving average where one is kept).

    `loss_of_step(step)` draws its batch from the step number alone, so that a stage that was stopped goes on from
    `directory/NAME.pt` as if it had not been. `made_from` names the frozen networks that the stage stands on: a state made on others
    is refused. Losses go to `directory/NAME.csv`. Returns {"steps", "loss", "seconds"}.
    """
    directory.mkdir(parents=True, exist_ok=True)
    checkpoint = directory / f"{name}.pt"
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99))
    average = [p.detach().clone() for p in parameters] if schedule.ema_decay else None
    start, elapsed, last_loss = 0, 0.0, float("nan")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=parameters[0].device)
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        start, elapsed, last_loss = state["step"], state["seconds"], state["loss"]
        if state.get("made_from", "") != made_from:
            raise ValueError(f"{name}: {checkpoint} was trained on other frozen networks: delete it to train anew")
        if start > schedule.steps:
            raise ValueError(f"{name}: {checkpoint} is at step {start}, beyond the {schedule.steps} asked for: raise --steps or delete it")
        if average is not None:
            average = state["average"]
        print(f"{name}: going on from step {start}", flush=True)
    log_path = directory / f"{name}.csv"
    rows = [row for row in _read_rows(log_path) if int(row["step"]) <= start]
    with log_path.open("w", newline="") as stream:
        writer = None
        for row in rows:
            writer = writer or _header(stream, row)
            writer.writerow(row)
        modules.train()
        clock, running, seen = time.monotonic(), 0.0, 0
        for step in range(start, schedule.steps):
            for group in optimizer.param_groups:
                group["lr"] = schedule.rate(step)
            loss, parts = loss_of_step(step)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"{name}: loss is {loss.item()} at step {step}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            if average is not None:
                decay = min(schedule.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)
            running, seen, done = running + loss.item(), seen + 1, step + 1
            if done % schedule.log_every == 0 or done == schedule.steps:
                last_loss = running / seen
                spent = elapsed + time.monotonic() - clock
                row = {"step": done, "seconds": round(spent, 1), "loss": round(last_loss, 6)} | {k: round(v, 6) for k, v in parts.items()}
                writer = writer or _header(stream, row)
                writer.writerow(row)
                stream.flush()
                left = (time.monotonic() - clock) / (done - start) * (schedule.steps - done)
                details = " ".join(f"{k}={v:.4g}" for k, v in parts.items())
                print(f"{name}: step {done}/{schedule.steps} loss {last_loss:.4f} {details} ({left / 60:.0f} min left)", flush=True)
                running, seen = 0.0, 0
            if done % schedule.save_every == 0 or done == schedule.steps:
                state = {
                    "modules": modules.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": done,
                    "loss": last_loss,
                    "made_from": made_from,
                }
                state["seconds"] = elapsed + time.monotonic() - clock
                if average is not None:
                    state["average"] = average
                save_atomically(state, checkpoint)
        elapsed += time.monotonic() - clock
    if average is not None:
        with torch.no_grad():
            for parameter, mean in zip(parameters, average, strict=True):
                parameter.copy_(mean)
    modules.eval()
    return {"steps": schedule.steps, "loss": last_loss, "seconds": round(elapsed)}


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("step")]


def _header(stream, row: dict) -> csv.DictWriter:
    writer = csv.DictWriter(stream, fieldnames=list(row))
    writer.writeheader()
    return writer

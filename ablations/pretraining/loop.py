"""One resumable, seeded training loop for every stage of the tiny backbones' pre-training."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ablations.pretraining.data import Corpus
from ablations.runtime.files import whole_file

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


@dataclass(frozen=True)
class Bench:
    """What a stage works with: the corpus, the folder that keeps its state, the device, and the seed that its batches follow from."""

    corpus: Corpus
    directory: Path
    device: torch.device
    seed: int


def save_atomically(state: object, path: Path) -> None:
    """Write `state` with torch.save so that `path` always holds a whole file."""
    with whole_file(path) as aside:
        torch.save(state, aside)


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights as safetensors in half precision, tied weights once."""
    state = {name: value.half().contiguous() if value.is_floating_point() else value for name, value in network.state_dict().items()}
    tied = {alias for alias, target in (getattr(network, "_tied_weights_keys", None) or {}).items() if alias != target}
    with whole_file(path) as aside:
        save_file({name: value for name, value in state.items() if name not in tied}, aside)
        aside.chmod(0o644)


def train(name: str, modules: nn.Module, loss_of_step: LossFunction, schedule: Schedule, directory: Path, made_from: str = "") -> dict:
    """Train `modules` to `schedule.steps` and leave the final weights in it (the moving average where one is kept).

    `loss_of_step(step)` draws its batch from the step number alone, so that a stage that was stopped goes on from
    `directory/NAME.pt` as if it had not been. `made_from` names the frozen networks that the stage stands on: a state made on others
    is refused. Losses go to `directory/NAME.csv`. Returns {"steps", "loss", "seconds"}.
    """
    directory.mkdir(parents=True, exist_ok=True)
    training = _Training(name, modules, schedule, directory / f"{name}.pt", made_from)
    training.resume()
    with _Log(name, directory / f"{name}.csv", training.step, schedule.steps) as log:
        modules.train()
        while training.step < schedule.steps:
            loss, parts = loss_of_step(training.step)
            training.take_step(loss)
            log.add(loss.item())
            if training.is_due(schedule.log_every):
                training.loss = log.write(training.step, training.seconds, parts)
            if training.is_due(schedule.save_every):
                training.save()
    training.take_average()
    modules.eval()
    return {"steps": schedule.steps, "loss": training.loss, "seconds": round(training.seconds)}


class _Training:
    """Modules on their way to `schedule.steps`: optimiser, moving average and position, which `checkpoint` keeps together."""

    def __init__(self, name: str, modules: nn.Module, schedule: Schedule, checkpoint: Path, made_from: str):
        self.name, self.modules, self.schedule, self.checkpoint, self.made_from = name, modules, schedule, checkpoint, made_from
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.99)
        )
        self.average = [p.detach().clone() for p in self.parameters] if schedule.ema_decay else None
        self.step, self.loss = 0, float("nan")
        self._seconds_before, self._began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent on training so far, by earlier processes too."""
        return self._seconds_before + time.monotonic() - self._began

    def is_due(self, every: int) -> bool:
        """Whether what happens every so many steps, and at the end, happens now."""
        return self.step % every == 0 or self.step == self.schedule.steps

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one. Raises ValueError where it belongs to another training or is further on."""
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True, map_location=self.parameters[0].device)
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self._seconds_before, self.loss = state["step"], state["seconds"], state["loss"]
        if state.get("made_from", "") != self.made_from:
            raise ValueError(f"{self.name}: {self.checkpoint} was trained on other frozen networks: delete it to train anew")
        if self.step > self.schedule.steps:
            raise ValueError(
                f"{self.name}: {self.checkpoint} is at step {self.step}, beyond the {self.schedule.steps} asked for: raise --steps or "
                "delete it"
            )
        if self.average is not None:
            self.average = state["average"]
        self._began = time.monotonic()
        print(f"{self.name}: going on from step {self.step}", flush=True)

    def take_step(self, loss: Tensor) -> None:
        """One step of the optimiser and of the moving average. Raises FloatingPointError for a loss that is not finite."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{self.name}: loss is {loss.item()} at step {self.step}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.average is not None:
            decay = min(self.schedule.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
        self.step += 1

    def save(self) -> None:
        """Keep everything that the next process needs to go on."""
        state = {"modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step, "loss": self.loss}
        state |= {"made_from": self.made_from, "seconds": self.seconds}
        if self.average is not None:
            state["average"] = self.average
        save_atomically(state, self.checkpoint)

    def take_average(self) -> None:
        """Put the moving average in the weights' place, where one is kept."""
        if self.average is None:
            return
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                parameter.copy_(mean)


class _Log:
    """The losses of a training as CSV and on the screen: each row is the mean since the row before it."""

    def __init__(self, name: str, path: Path, start: int, steps: int):
        self._name, self._path, self._start, self._steps = name, path, start, steps
        self._running, self._seen = 0.0, 0

    def __enter__(self) -> _Log:
        rows = [row for row in _read_rows(self._path) if int(row["step"]) <= self._start]
        self._stream = self._path.open("w", newline="")
        self._writer: csv.DictWriter | None = None
        for row in rows:
            self._write(row)
        self._began = time.monotonic()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stream.close()

    def add(self, loss: float) -> None:
        self._running, self._seen = self._running + loss, self._seen + 1

    def write(self, step: int, seconds: float, parts: Mapping[str, float]) -> float:
        """A row after `step` steps; returns the mean loss since the last one."""
        loss = self._running / self._seen
        row = {"step": step, "seconds": round(seconds, 1), "loss": round(loss, 6)} | {k: round(v, 6) for k, v in parts.items()}
        self._write(row)
        self._stream.flush()
        left = (time.monotonic() - self._began) / (step - self._start) * (self._steps - step)
        details = " ".join(f"{k}={v:.4g}" for k, v in parts.items())
        print(f"{self._name}: step {step}/{self._steps} loss {loss:.4f} {details} ({left / 60:.0f} min left)", flush=True)
        self._running, self._seen = 0.0, 0
        return loss

    def _write(self, row: Mapping[str, object]) -> None:
        if self._writer is None:
            self._writer = csv.DictWriter(self._stream, fieldnames=list(row))
            self._writer.writeheader()
        self._writer.writerow(row)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row.get("step")]

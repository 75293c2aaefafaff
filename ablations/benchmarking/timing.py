"""Timing things side by side: alternating in one run, so that what else the machine does falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timed:
    """Seconds of each repeat, in order."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternating(
    works: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, check: Callable[[], None] = lambda: None
) -> dict[str, Timed]:
    """Each work once to warm up, then all in turn, `repeats` times; `check()` may raise between them to stop."""
    for work in works.values():
        check()
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            check()
            started = now(device)
            work()
            seconds[name].append(now(device) - started)
    return {name: Timed(tuple(values)) for name, values in seconds.items()}


def now(device: torch.device) -> float:
    """The time once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def ratio(slow: Timed, fast: Timed) -> float:
    """The median over repeats of how many times as long the first takes, repeat by repeat: neighbours in time are compared."""
    return statistics.median(one / other for one, other in zip(slow.seconds, fast.seconds, strict=True))

"""Runs the benchmark's parts in one go and gives what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ablations.benchmarking.drawing import compare_drawing, draw_ours
from ablations.benchmarking.floors import Floor, bytes_of_drawing, bytes_of_encoding, bytes_of_step, encoding, floor_of
from ablations.benchmarking.loop import compare_loops
from ablations.benchmarking.machine import Reach, description, reach_of
from ablations.benchmarking.matrix import Matrix, compare_matrix
from ablations.benchmarking.sizes import SIZES, Size
from ablations.benchmarking.timing import Timed, alternating, ratio
from ablations.benchmarking.training import Steps, steps_of
from ablations.cell.loading.device import ready
from lightning_modules.frozen_precision import FrozenPrecision

PARTS = ("training", "loop", "drawing", "matrix", "floors")
# Full size needs so much memory of a GPU.
_FULL_SIZE_BYTES = 60e9


@dataclass
class Found:
    """What a run of the benchmark found; a part that was not asked for is empty."""

    machine: dict[str, Any]
    reach: Reach
    training: dict[str, dict[str, Timed]] = field(default_factory=dict)
    loop: dict[str, Timed] = field(default_factory=dict)
    drawing: dict[str, dict[str, Timed]] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    matrix: Matrix | None = None
    floors: dict[str, list[Floor]] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything, with the medians and ratios that the table shows."""
        training = {size: {name: timed.seconds for name, timed in works.items()} for size, works in self.training.items()}
        drawing = {size: {name: timed.seconds for name, timed in works.items()} for size, works in self.drawing.items()}
        return {
            "machine": self.machine,
            "reach": asdict(self.reach),
            "training": training,
            "training_ratio": {size: ratio(works["authors"], works["ours"]) for size, works in self.training.items()},
            "loop": {name: timed.seconds for name, timed in self.loop.items()},
            "loop_ratio": ratio(self.loop["lightning"], self.loop["loop"]) if self.loop else None,
            "drawing": drawing,
            "drawing_ratio": {size: ratio(works["pipeline"], works["ours"]) for size, works in self.drawing.items()},
            "matrix": asdict(self.matrix) | {"share": self.matrix.share} if self.matrix else None,
            "floors": {size: [asdict(floor) | {"reached": floor.reached} for floor in floors] for size, floors in self.floors.items()},
            "seconds": self.seconds,
        }


def default_sizes(device: torch.device) -> tuple[str, ...]:
    """Those that the device can time within minutes."""
    if device.type != "cuda":
        return ("tiny", "middle")
    memory = torch.cuda.get_device_properties(device).total_memory
    return ("tiny", "middle", "full") if memory >= _FULL_SIZE_BYTES else ("tiny", "middle")


def run_benchmark(
    device: torch.device,
    sizes: Sequence[str],
    parts: Sequence[str],
    repeats: int,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> Found:
    """Time what was asked for on `device`; `say` hears what is being timed, `check()` may raise to stop."""
    began = time.monotonic()
    ready(device)
    half = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = Found(description(device), reach_of(device, half))
    if "matrix" in parts:
        say("the cells of a small sweep, together and alone")
        found.matrix = compare_matrix(check)
    for name in sizes:
        _time_size(found, SIZES[name], device, parts, repeats, say, check)
    if "loop" in parts:
        say("Lightning's step and a plain loop's")
        backbones = SIZES["tiny"].build(FrozenPrecision())
        found.loop = compare_loops(backbones, steps=20, repeats=repeats, check=check)
    found.seconds = time.monotonic() - began
    return found


def _time_size(
    found: Found,
    size: Size,
    device: torch.device,
    parts: Sequence[str],
    repeats: int,
    say: Callable[[str], None],
    check: Callable[[], None],
) -> None:
    wanted = [part for part in ("training", "drawing", "floors") if part in parts]
    if not wanted:
        return
    say(f"{size.name}: {', '.join(wanted)}")
    on_gpu = device.type == "cuda"
    precision = FrozenPrecision(torch.bfloat16, torch.float32, torch.bfloat16) if on_gpu else FrozenPrecision()
    backbones = size.build(precision)
    found.records[size.name], found.pictures[size.name] = size.batch_size, size.drawn
    steps = steps_of(size, backbones, device, torch.bfloat16 if on_gpu else None)
    if "training" in parts or "floors" in parts:
        found.training[size.name] = alternating({"ours": steps.ours, "authors": steps.authors}, repeats, device, check)
    if "drawing" in parts or "floors" in parts:
        found.drawing[size.name] = compare_drawing(size, backbones, device, repeats, check)
    if "floors" in parts:
        found.floors[size.name] = _floors(found, size, backbones, steps, device)


def _floors(found: Found, size: Size, backbones: Any, steps: Steps, device: torch.device) -> list[Floor]:
    encode = encoding(size, backbones, device)
    encoded = alternating({"encode": encode}, 3, device)["encode"].median
    ours, drawn = found.training[size.name]["ours"].median, found.drawing[size.name]["ours"].median
    reach = found.reach
    return [
        floor_of("training step", steps.ours, bytes_of_step(backbones, steps.module), ours, reach),
        floor_of("drawing", lambda: draw_ours(size, backbones), bytes_of_drawing(size, backbones), drawn, reach),
        floor_of("encoding for the cache", encode, bytes_of_encoding(backbones), encoded, reach),
    ]

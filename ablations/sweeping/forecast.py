"""Time and disk that a sweep will take: what its cells have to make and do not share, times what that costs on this machine.

`forecast.json` in the sweep's folder keeps it, so that a report can show forecast against actual.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
from collections.abc import Hashable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ablations.config import KEYS, Config, to_flat_dict
from ablations.results.comparisons import Reads, what_is_read
from ablations.results.conditions import ADAPTER, DEPENDS_ON, REFINING, REWRITING, TRAINING, all_conditions
from ablations.results.looking import Run, look_at_run
from ablations.results.provenance import library_versions
from ablations.results.run_folder import cache_folder
from ablations.runtime.files import write_json
from ablations.runtime.foreign import Unreadable, read_json
from ablations.sweeping.cell import Cell
from ablations.sweeping.dispatcher import is_trained
from lightning_modules.terms import all_terms

# Keys of a training that change what it learns and not what it costs.
_FREE_TRAIN_KEYS = {
    *("loss.clip_scale", "adapter.match_scale", "afe.weights", "afe.forcing"),
    *("adapter.output_relu", "afe.temperature", "train.learning_rate", "train.new_parts_lr_scale", "train.beta1", "train.beta2"),
    *("train.weight_decay", "train.adam_eps", "train.warmup_steps", "train.decay_share", "train.grad_clip"),
}
# What is not probed: W&B's start and end, loss curves, diversity grid, and the small files beside the pictures.
_OTHER_SECONDS, _OTHER_BYTES = 2.5, 1_000_000
# The manipulation checks of 512 records cost about as many training steps.
_CHECK_STEPS = 30
# A cell by its folder within the output folder; never a way out of it.
_CELL_NAME = re.compile(r"(?!\.)[^/\\\0]+/seed-\d+")
PARTS = ("training", "checks", "refining", "drawing", "scoring", "other")


@dataclass(frozen=True)
class TrainingCosts:
    """Of one training: seconds a step and before the first one, bytes of its checkpoint; of its data: seconds and bytes a record; the most
    memory of a GPU that its steps took, 0 on a CPU."""

    steps: int
    step_seconds: float
    start_seconds: float
    checkpoint_bytes: int
    num_records: int
    read_seconds: float
    encode_seconds: float
    feature_bytes: int
    encoders: dict[str, str]
    memory_bytes: float = 0.0


@dataclass(frozen=True)
class EvaluationCosts:
    """Seconds for a token of a prompt, for a picture and for its scores, the bytes of a picture, and the most memory of a GPU."""

    token_seconds: float
    picture_seconds: float
    score_seconds: float
    picture_bytes: float
    memory_bytes: float = 0.0


@dataclass
class CellForecast:
    """Seconds by part, bytes, and how many pictures have to be drawn of how many that the cell shows."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    bytes: float = 0.0
    new_pictures: int = 0
    pictures: int = 0

    def add(self, other: CellForecast) -> None:
        self.seconds = {part: seconds + other.seconds[part] for part, seconds in self.seconds.items()}
        self.bytes += other.bytes
        self.new_pictures += other.new_pictures
        self.pictures += other.pictures


def machine(threads: int | None) -> dict[str, Any]:
    """What costs depend on besides the config: the machine, the libraries, the threads of a process (None: torch's choice)."""
    return {
        "host": socket.gethostname(),
        "processors": os.cpu_count(),
        "threads": threads,
        "openmp": os.environ.get("OMP_NUM_THREADS"),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "libraries": library_versions(),
    }


def training_kind(config: Config) -> str:
    """Equal for trainings that cost the same."""
    flat = to_flat_dict(config)
    free = _FREE_TRAIN_KEYS | {f"loss.{term.name}_weight" for term in all_terms()}
    kept = {name: flat[name] for name, key in KEYS.items() if key.option.kind == "train" and name not in free}
    return digest(["training", kept, flat["trainer.accelerator"], flat["data.num_workers"]])


def evaluation_kind(config: Config) -> str:
    """Equal for evaluations whose refinements, pictures and scores cost the same, one by one."""
    flat = to_flat_dict(config)
    names = [name for name in KEYS if name.startswith("backbones.")]
    names += ["profile", "data.source", "trainer.compile_unet", "eval.steps", "eval.num_candidates", "eval.batch_size"]
    return digest(["evaluation", [flat[name] for name in names], flat["eval.guidance_scale"] == 1, flat["trainer.accelerator"]])


def digest(content: object) -> str:
    """16 hex digits of something that JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _train_keys() -> list[str]:
    return [name for name, key in KEYS.items() if key.option.kind == "train"]


def picture_groups(config: Config) -> dict[tuple, int]:
    """What a cell shows, as groups of pictures: how many are in each, by a key that is equal where the pictures are."""
    flat, e = to_flat_dict(config), config.eval
    data = tuple((name, flat.get(name)) for name in _train_keys() if name.startswith("data."))
    drawn = (config.seed, config.profile, config.backbones, data, e.coarse_length, e.steps, e.guidance_scale, e.batch_size)
    parts = _parts(config)
    groups: dict[tuple, int] = {}
    for name, reads in what_is_read(config).items():
        condition = all_conditions()[name]
        texts = (condition.same_as or name, *(parts[part] for part in DEPENDS_ON if part in condition.depends_on))
        for prompts, is_in_grid in _prompts_with_pictures(config):
            for candidate in range(reads.pictures_of(is_in_grid)):
                # Where noise is shared, the first candidate's is its own, and its picture may be there already.
                noise_of = 0 if condition.shared_noise else candidate
                groups[(*drawn, *texts, condition.by_trained_encoder, candidate, noise_of, prompts)] = len(prompts)
    return groups


def _prompts_with_pictures(config: Config) -> list[tuple[range, bool]]:
    """The places of the prompts with pictures in parts, and whether a part is in the diversity grid."""
    count = config.eval.num_prompts
    in_grid = min(config.eval.grid_prompts, count)
    return [(part, part.start < in_grid) for part in (range(in_grid), range(in_grid, count)) if part]


def _parts(config: Config) -> dict[str, Hashable]:
    """What the texts of conditions may follow from, equal where it is: see `Condition.depends_on`."""
    e = config.eval
    rewriting = ("rewrite", e.max_new_tokens, e.top_p, e.top_k)
    refining = rewriting if e.mode == "rewrite" else (e.mode, config.prompt_len, e.extend_by, e.rounds, e.top_p, e.top_k)
    flat = to_flat_dict(config)
    return {TRAINING: tuple(flat.get(name) for name in _train_keys()), ADAPTER: config.adapter, REFINING: refining, REWRITING: rewriting}


def refined_tokens(config: Config) -> int:
    """Tokens that a cell's refining writes: of every prompt, candidate and condition those of all rounds, and one more a round."""
    e = config.eval
    rewriting = e.max_new_tokens + 1
    tokens = {REFINING: rewriting if e.mode == "rewrite" else e.rounds * (config.prompt_len + 1), REWRITING: rewriting}
    total = 0
    for name, reads in what_is_read(config).items():
        condition = all_conditions()[name]
        if condition.samples:
            total += _num_written(config, reads) * sum(tokens.get(part, 0) for part in condition.depends_on)
    return total


def _num_written(config: Config, reads: Reads) -> int:
    """How many texts of a condition are written."""
    with_pictures = _prompts_with_pictures(config)
    count = sum(len(prompts) * max(reads.pictures_of(is_in_grid), reads.texts) for prompts, is_in_grid in with_pictures)
    return count + max(0, config.eval.text_prompts - config.eval.num_prompts) * reads.texts * bool(with_pictures)


def forecast_cells(
    cells: Sequence[Cell],
    example: Config | None,
    num_unknown: int,
    training: Mapping[str, TrainingCosts],
    evaluation: Mapping[str, EvaluationCosts],
    finished: Set[int] | None = None,
) -> tuple[dict[str, CellForecast], CellForecast]:
    """What each cell that is not finished will take, by its name, and what all that is to be done takes together.

    Earlier cells, and finished ones, share with later ones. Of a search, `num_unknown` cells have not been asked for: each counts like
    `example`, with a training of its own. `finished` are the numbers of those that have, where that is known already.
    """
    if finished is None:
        finished = {cell.number for cell in cells if cell.folder.is_finished()}
    drawn = {group for cell in cells if cell.number in finished and cell.config.eval.reuse for group in picture_groups(cell.config)}
    trained: set[Path] = set()
    forecasts: dict[str, CellForecast] = {}
    for cell in (cell for cell in cells if cell.number not in finished):
        needs_training = not is_trained(cell) and cell.folder.training_path not in trained
        trained.add(cell.folder.training_path)
        groups = picture_groups(cell.config)
        forecasts[str(cell.folder)] = _forecast(cell.config, needs_training, _News(groups, drawn), training, evaluation)
        if cell.config.eval.reuse:
            drawn.update(groups)
    unknown = []
    if example is not None and num_unknown:
        unknown = [_forecast(example, True, _News(picture_groups(example), drawn), training, evaluation)] * num_unknown
    together = CellForecast()
    for each in (*forecasts.values(), *unknown):
        together.add(each)
    return forecasts, together


@dataclass(frozen=True)
class _News:
    """A cell's groups of pictures, and those that are drawn before."""

    groups: Mapping[tuple, int]
    drawn: Set[tuple]

    @property
    def pictures(self) -> int:
        return sum(self.groups.values())

    @property
    def new_pictures(self) -> int:
        return sum(count for group, count in self.groups.items() if group not in self.drawn)


def _forecast(
    config: Config,
    needs_training: bool,
    shown: _News,
    training: Mapping[str, TrainingCosts],
    evaluation: Mapping[str, EvaluationCosts],
) -> CellForecast:
    """What a cell takes that shows these pictures."""
    found = CellForecast()
    found.seconds["other"] = _OTHER_SECONDS
    if needs_training:
        costs = training[training_kind(config)]
        found.seconds["training"] = (
            costs.start_seconds + costs.steps * costs.step_seconds / config.trainer.devices / config.trainer.num_nodes
        )
        found.seconds["checks"] = _CHECK_STEPS * costs.step_seconds * config.train.check_records / 512
        found.bytes += costs.checkpoint_bytes
    if not shown.groups:
        return found
    each, e = evaluation[evaluation_kind(config)], config.eval
    found.pictures, found.new_pictures = shown.pictures, shown.new_pictures
    found.seconds["refining"] = refined_tokens(config) * each.token_seconds
    found.seconds["drawing"] = math.ceil(found.new_pictures / e.batch_size) * e.batch_size * each.picture_seconds
    found.seconds["scoring"] = found.new_pictures * each.score_seconds
    # Timed on one device; what several share out is taken to be shared evenly.
    processes = config.trainer.devices * config.trainer.num_nodes
    found.seconds |= {part: found.seconds[part] / processes for part in ("refining", "drawing", "scoring")}
    found.bytes += _OTHER_BYTES + each.picture_bytes * (found.pictures + (found.new_pictures if e.reuse else 0))
    return found


def features_to_encode(config: Config, costs: TrainingCosts) -> tuple[float, float]:
    """(seconds, bytes) of the frozen features that are not cached yet."""
    there = set()
    for path in (cache_folder(config) / "features").glob("*/meta.json"):
        with suppress(Unreadable, FileNotFoundError):  # it will be made again
            meta = read_json(path, dict)
            there.add((str(meta.get("encoder_digest")), meta.get("num_records")))
    missing = [name for name, digest in costs.encoders.items() if (digest, costs.num_records) not in there]
    share = len(missing) / max(1, len(costs.encoders))
    return share * costs.num_records * costs.encode_seconds, share * costs.num_records * costs.feature_bytes


def keep_forecast(folder: Path, cells: Mapping[str, CellForecast], totals: Mapping[str, Any]) -> None:
    """Writes FOLDER/forecast.json; what was forecast for cells that have finished since is kept."""
    path = folder / "forecast.json"
    try:
        earlier = _forecasts_in(path)
    except Unreadable:  # torn or of another version: only the comparison is lost
        earlier = {}
    made = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {"made": made, **totals, "cells": {**earlier, **{name: asdict(cell) for name, cell in cells.items()}}})


def _forecasts_in(path: Path) -> dict[str, dict[str, Any]]:
    """The cells' forecasts in a forecast.json, none where there is no such file. Raises Unreadable where it has another shape."""
    try:
        cells = read_json(path, dict).get("cells")
    except FileNotFoundError:
        return {}
    is_well = isinstance(cells, dict) and all(isinstance(cell, dict) and _are_numbers(cell.get("seconds")) for cell in cells.values())
    if not is_well:
        raise Unreadable("its cells have no seconds by part")
    if foreign := next((name for name in cells if not _CELL_NAME.fullmatch(name)), None):
        raise Unreadable(f"{foreign!r:.80} is no cell, as in ARM/seed-0")
    return cells


def _are_numbers(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())


def forecast_against_actual(folder: Path) -> list[dict[str, Any]]:
    """For each finished cell that was forecast: {"cell", "part", "forecast", "actual"} in seconds, a row for each of PARTS.

    `folder` is the sweep's, OUTPUT_DIR/sweeps/NAME. `other` is the rest of the time between a cell's start and its end, in whole seconds.
    Empty where nothing was forecast. Raises Unreadable for a forecast.json that is none; a cell that cannot be read has no rows.
    """
    rows = []
    for name, cell in _forecasts_in(folder / "forecast.json").items():
        run = look_at_run(folder.parent.parent / name)
        if not isinstance(run, Run) or run.status != "finished" or run.seconds is None:
            continue
        actual = {part: run.timings.get(part, 0.0) for part in PARTS}
        actual["other"] = max(0.0, run.seconds - sum(run.timings.values()))
        rows += [{"cell": name, "part": part, "forecast": cell["seconds"].get(part, 0.0), "actual": actual[part]} for part in PARTS]
    return rows

"""`ablations.plan FILE --register REGISTRATION.json`: everything that is fixed before the first cell, written down."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ablations.config import Config
from ablations.planning.power import Line, Power
from ablations.results.provenance import code_digests, code_revision, library_versions
from ablations.results.registration import ExpectedUndecided, Planned, Prediction, Registration, claims_content, now
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_there
from ablations.sweeping.cells import Grid
from ablations.sweeping.sweep_file import SweepFile, digest_of

# Seeds from here on are for pilots, whose variances are looked at before anything is registered.
PILOT_SEEDS = 1000


def refuse_late(cells: Grid, path: Path) -> None:
    """Raises UserError where a cell of the sweep has begun already, or the file exists: both would make it no registration."""
    if is_there(path):
        raise UserError(f"{path} exists already: a registration is made once; choose another name, or delete it if no cell was run by it")
    begun = [str(cell.folder) for cell in cells.cells if cell.folder.status() != "absent"]
    if begun:
        where = cells.example.output_dir
        raise UserError(
            f"{len(begun)} cells of the sweep have begun in {where}, first {begun[0]}: register before, with another output_dir"
        )


def planned_of(sweep: SweepFile, cells: Grid, design_text_prompts: int) -> Planned:
    """The sweep as it is planned. Raises UserError where its arms do not all run at the same seeds."""
    arms, seeds_of = {}, {}
    for cell in cells.cells:
        label = cell.arm_label
        arms[label] = cell.folder.arm
        seeds_of.setdefault(label, set()).add(cell.config.seed)
    seeds = sorted(set.union(*seeds_of.values()))
    if uneven := next((label for label, own in seeds_of.items() if len(own) < len(seeds)), None):
        raise UserError(f"{sweep.path}: {uneven} lacks a seed that other arms have; every arm must run at every seed to be registered")
    if pilots := [seed for seed in seeds if seed >= PILOT_SEEDS]:
        raise UserError(f"{sweep.path}: seed {pilots[0]} is a pilot's: seeds of {PILOT_SEEDS} and above judge no claim")
    e = cells.example.eval
    file_digest = hashlib.sha256(sweep.path.read_bytes()).hexdigest()[:16]
    cells_digest = digest_of(sweep, sweep.run_cap)
    return Planned(sweep.name, file_digest, cells_digest, arms, tuple(seeds), e.num_prompts, design_text_prompts, e.num_candidates)


def registration_for(planned: Planned, power: Power, digests: tuple[str, str]) -> Registration:
    """The registration of a planned sweep, made now. digests: of the data and of the weights."""
    chances = {setting: power.claim(setting[0], power.plan.design, setting[1]) for setting in power.settings}
    # What no variance was measured of is not expected to be anything: it must not excuse an undecided claim afterwards.
    undecided = [_undecided(power, *setting) for setting, found in chances.items() if found.chance is not None and not found.decides]
    return Registration(
        made=now(),
        planned=planned,
        claims=claims_content(),
        predictions=tuple(_prediction(line) for line in power.lines([power.plan.design])),
        expected_undecided=tuple(undecided),
        code_digests=code_digests(),
        code_revision=code_revision()[0],
        data_digest=digests[0],
        weights_digest=digests[1],
        versions=library_versions(),
    )


def _undecided(power: Power, claim: str, setting: int) -> ExpectedUndecided:
    own = power.of_setting(claim, setting)
    endpoints = tuple(dict.fromkeys(contrast.endpoint for contrast in own))
    return ExpectedUndecided(claim, own[0].condition, endpoints, power.needs(claim, setting))


def _prediction(line: Line) -> Prediction:
    contrast, chances = line.contrast, line.chances
    parts = line.found.measured.components if line.found else None
    variances = {"seed": parts.seed, "prompt": parts.prompt, "seed_prompt": parts.rest, "candidate": parts.candidate} if parts else {}
    return Prediction(
        claim=contrast.claim,
        row=contrast.row,
        condition=contrast.condition,
        endpoint=contrast.endpoint,
        margin=contrast.margin,
        half_width=_short(chances and chances.half_width),
        power=_short(chances and chances.power),
        equivalence=_short(chances and chances.equivalence),
        components={name: float(f"{value:.4g}") for name, value in variances.items()},
        measured_in=line.found.source if line.found else "not measured",
    )


def digests_of(config: Config, say: Callable[[str], None]) -> tuple[str, str]:
    """Digests of data and frozen weights as a cell of this config writes them. Raises UserError where they cannot be read."""
    announce_libraries(say)
    from ablations.cell.loading.data import build_data
    from ablations.cell.loading.kept import Kept
    from ablations.cell.loading.module import build_module

    kept = Kept()
    try:
        backbones = kept.backbones(config)
        data = build_data(config, build_module(config, backbones), say)
        kept.read_records(config, data)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    return data.digest, backbones.digest


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")

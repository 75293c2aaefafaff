"""Variance components and costs from the finished cells of an output folder. It shows no mean and no difference of any arm.

Rows that have 3 seeds are measured as the report measures them, with the spread that it pools; of fewer seeds, and for rows that were not
run, all arms that spread alike stand for one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ablations.config.parsing import Scalar
from ablations.planning.contrasts import Contrast, row_keys
from ablations.planning.costs import costs_of_cells
from ablations.planning.measured import EVERY_ARM, ComponentsFile, Measured, origin_of, read_components
from ablations.planning.reported import reported_cells
from ablations.planning.variances import Scores, components_of, mean_components, of_wider_spread, scores_of
from ablations.reporting.collect import FinishedCell, Section, collect
from ablations.reporting.gathering import evidence_of
from ablations.reporting.measuring import measure
from ablations.reporting.pooling import components_from
from ablations.reporting.statistics import MIN_SEEDS
from ablations.results.conditions import FINE
from ablations.runtime.errors import UserError

# The least that a variance between seeds can be estimated from.
_LEAST_SEEDS = 2
# The paper's improvement, "5% on average".
PAPERS_SHARE = 0.05


@dataclass(frozen=True)
class _Arms:
    """The arms of a folder at the seeds that all of them have finished: a cell per seed, in the seeds' order, by folder name."""

    cells: Mapping[str, Sequence[FinishedCell]]
    seeds: tuple[int, ...]

    @property
    def all_cells(self) -> list[FinishedCell]:
        return [cell for cells in self.cells.values() for cell in cells]

    @property
    def num_prompts(self) -> int:
        """Prompts with pictures."""
        return int(self.all_cells[0].settings["eval.num_prompts"])


def measure_folder(folder: Path, contrasts: Sequence[Contrast]) -> ComponentsFile:
    """Components of every endpoint and condition that contrasts read, and costs. Raises UserError where the cells are too few."""
    arms = _arms_among(folder, collect(folder).sections[0].cells)
    origin = origin_of(folder, arms.all_cells, arms.seeds)
    return ComponentsFile(origin, _components(arms, contrasts, folder), costs_of_cells([cell.folder for cell in arms.all_cells]))


def measure_reports(
    folders: Sequence[Path], contrasts: Sequence[Contrast], settings_of: Mapping[str, Mapping[str, Scalar]]
) -> ComponentsFile:
    """As `measure_folder`, from the scores that reports ship, for when their runs are elsewhere: of the arms that `settings_of` has, at
    the seeds of all reports together. Of a cell that two of them have, the last one's scores count.

    A report does not say what its cells took: the costs are those that the package ships. Raises UserError where they are of other data
    or weights.
    """
    cells = [cell for folder in folders for cell in reported_cells(folder, settings_of)]
    made_of = {(cell.data_digest, cell.weights_digest): cell.folder.parents[1] for cell in cells}
    if len(made_of) > 1:
        first, other = list(made_of.values())[:2]
        raise UserError(f"{first} and {other} are reports on other data or other weights: plan from reports on the same")
    arms = _arms_among(folders[-1], cells)
    origin = replace(origin_of(folders[-1], arms.all_cells, arms.seeds), where=", ".join(folder.resolve().name for folder in folders))
    return ComponentsFile(origin, _components(arms, contrasts, folders[-1]), read_components().costs)


def _components(arms: _Arms, contrasts: Sequence[Contrast], folder: Path) -> tuple[Measured, ...]:
    found: list[Measured] = []
    for metric, condition in dict.fromkeys((c.metric, c.read_in) for c in contrasts if not c.is_of_conditions):
        found += _of_arms(arms, metric, condition, [c for c in contrasts if (c.metric, c.read_in) == (metric, condition)])
    for contrast in {c.row_id + c.endpoint: c for c in contrasts if c.is_of_conditions}.values():
        found += _of_conditions(arms, contrast)
    if not found:
        raise UserError(f"the cells in {folder} have scores of none of the claims' endpoints: run them again with this version")
    rows = {_key(each): each for each in _as_reported(arms, contrasts, found)}
    return (*(each for each in found if _key(each) not in rows), *rows.values())


def _key(measured: Measured) -> tuple[str, str, str]:
    """What components are of: condition, endpoint, and a row or every arm."""
    return measured.condition, measured.endpoint, measured.of


def _as_reported(arms: _Arms, contrasts: Sequence[Contrast], known: Sequence[Measured]) -> list[Measured]:
    """Components of each row as the report's tables have them. What candidates vary by is `known`, since a table averages over them."""
    first = arms.all_cells[0]
    cells = tuple(arms.all_cells)
    evidence = evidence_of(Section(first.profile, first.data_digest, first.weights_digest, cells))
    found = []
    for contrast in contrasts:
        base = [
            m for m in known if (m.condition, m.endpoint) == (contrast.read_in, contrast.metric) and m.of in (EVERY_ARM, contrast.row_id)
        ]
        there = [c for c in evidence.of(contrast.table, contrast.read_in) if contrast.row in c.arms]
        own = measure(there[0], contrast.metric).get(contrast.row) if base and there else None
        if own is None or own.squares is None or len(own.seeds) < MIN_SEEDS:
            continue
        plain = components_from(own.squares, *own.paired.shape)
        candidates = max(1, base[0].num_candidates)
        candidate = min(base[0].components.candidate, plain.rest * candidates)
        components = replace(plain, rest=plain.rest - candidate / candidates, candidate=candidate)
        arms_behind = own.pooled_arms or 2
        found.append(
            replace(
                base[0],
                of=contrast.row_id,
                components=components,
                num_arms=arms_behind,
                num_seeds=len(own.seeds),
                num_prompts=own.paired.shape[1],
                pooled_arms=own.pooled_arms,
            )
        )
    return found


def _arms_among(folder: Path, cells: Sequence[FinishedCell]) -> _Arms:
    by_arm: dict[str, dict[int, FinishedCell]] = {}
    for cell in cells:
        by_arm.setdefault(cell.arm, {})[cell.seed] = cell
    seeds = sorted(set.intersection(*(set(cells) for cells in by_arm.values())))
    if len(by_arm) < 2 or len(seeds) < _LEAST_SEEDS:
        have = f"{len(by_arm)} arms that have {len(seeds)} seeds in common"
        raise UserError(f"variances of differences need 2 arms at 2 equal seeds, {folder} has {have}: run more of the sweep first")
    return _Arms({arm: [cells[seed] for seed in seeds] for arm, cells in by_arm.items()}, tuple(seeds))


def _of_arms(arms: _Arms, metric: str, condition: str, contrasts: Sequence[Contrast]) -> list[Measured]:
    """The components that arms of one spread have together, and those of each claimed row that spreads otherwise."""
    names = [name for name, cells in arms.cells.items() if scores_of([cells], metric, [condition]) is not None]
    scores = scores_of([arms.cells[name] for name in names], metric, [condition] * len(names)) if names else None
    if scores is None or len(names) < 2:
        return []
    apart = {names[i] for i in of_wider_spread(scores.every.mean(axis=-1))}
    alike = [name for name in names if name not in apart]
    found: list[Measured] = []
    for of, members in ((EVERY_ARM, alike), *_rows_apart(arms, apart, alike, contrasts)):
        own = scores_of([arms.cells[name] for name in members], metric, [condition] * len(members))
        if own is not None and len(members) > 1:
            measured = _measured(arms, condition, metric, of, [own])
            found.append(_with_pooled_seed(measured, found[0]) if found else measured)
    return found


def _with_pooled_seed(own: Measured, pooled: Measured) -> Measured:
    """A row that spreads more has a seed's variance of at least the pool's: its own, from one pair of arms, may be 0 by chance."""
    components = replace(own.components, seed=max(own.components.seed, pooled.components.seed))
    return replace(own, components=components)


def _rows_apart(arms: _Arms, apart: set[str], alike: Sequence[str], contrasts: Sequence[Contrast]) -> list[tuple[str, list[str]]]:
    """(row, [its arm, the reference's]) for every contrast whose arm spreads otherwise."""
    pairs: dict[str, list[str]] = {}
    for contrast in contrasts:
        keys = {name: row_keys(contrast.table, cells[0].settings) for name, cells in arms.cells.items()}
        rows = [name for name, key in keys.items() if key.row == contrast.row and name in apart]
        references = [name for name, key in keys.items() if key.is_reference and name in alike]
        if rows and references:
            pairs[contrast.row_id] = [rows[0], references[0]]
    return list(pairs.items())


def _of_conditions(arms: _Arms, contrast: Contrast) -> list[Measured]:
    """Of two conditions of one arm: the mean over the arms that have both."""
    pairs = [scores_of([cells, cells], contrast.metric, [contrast.read_in, contrast.reference_in]) for cells in arms.cells.values()]
    both = [pair for pair in pairs if pair is not None]
    return [_measured(arms, contrast.read_in, contrast.metric, contrast.row_id, both)] if both else []


def _measured(arms: _Arms, condition: str, metric: str, of: str, parts: Sequence[Scores]) -> Measured:
    num_arms, num_seeds, num_prompts, num_candidates = parts[0].every.shape
    return Measured(
        condition=condition,
        endpoint=metric,
        of=of,
        components=mean_components([components_of(part) for part in parts]),
        num_arms=num_arms if len(parts) == 1 else len(parts),
        num_seeds=num_seeds,
        num_prompts=num_prompts,
        num_candidates=0 if parts[0].is_of_sets else num_candidates,
        of_texts=num_prompts > arms.num_prompts,
        five_percent=_five_percent(arms, metric),
    )


def _five_percent(arms: _Arms, metric: str) -> float | None:
    """5% of what the fine prompts reach; None where they have no such score."""
    values = [cell.values(metric, FINE) for cell in arms.all_cells]
    present = [float(value.mean()) for value in values if value is not None and np.isfinite(value).all()]
    return PAPERS_SHARE * abs(float(np.mean(present))) if present else None

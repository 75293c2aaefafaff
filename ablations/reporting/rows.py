"""Rows of a table: for every metric the mean, and the paired difference from the reference row with its interval and p-value."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablations.metrics.base import NOT_AVAILABLE
from ablations.reporting.collect import MANY, FinishedCell
from ablations.reporting.columns import QUALITY, STYLE_ENTROPY, Column
from ablations.reporting.evidence import Arm, Comparison, Scores
from ablations.reporting.formats import ABSENT, sample_size
from ablations.reporting.measuring import measure
from ablations.reporting.statistics import MIN_SEEDS, Difference, freedom_of_quantile, holm, paired_difference
from ablations.results.conditions import is_shared_noise

# Cells by seed, and the condition that is read of them.
Source = tuple[Mapping[int, FinishedCell], str]
_SEED_ONLY = "a value per seed: interval over seeds only"


@dataclass(frozen=True)
class Entry:
    """A row's value of one metric.

    `interval` is that of the mean, for new seeds and prompts. `difference` is row minus reference, over the seeds and prompts that
    both have; below MIN_SEEDS seeds there is only its mean, `difference_mean`. `p_holm` is corrected for the table's rows. `by_seed` and
    `differences_by_seed` are the means of single seeds, in their order, of which the two are made. `pooled_arms` is the number of arms
    whose spread is behind the interval of the difference, None where it is its own.
    """

    mean: float
    num_seeds: int
    num_prompts: int
    interval: tuple[float, float] | None = None
    difference: Difference | None = None
    difference_mean: float | None = None
    shared_seeds: int = 0
    p_holm: float | None = None
    note: str = ""
    num_candidates: int = 0
    by_seed: tuple[float, ...] = ()
    differences_by_seed: tuple[float, ...] = ()
    pooled_arms: int | None = None

    @property
    def is_significant(self) -> bool:
        return self.p_holm is not None and self.p_holm < 0.05


@dataclass(frozen=True)
class Row:
    """An arm, or a condition of one arm. `entries` by column key; `unavailable` names metrics that were asked for but could not be
    computed. Without finished cells `arm` is "". `begun` counts the seeds that were begun, finished or not."""

    key: str
    label: str
    arm: str
    seeds: tuple[int, ...]
    num_prompts: int
    num_candidates: int
    entries: Mapping[str, Entry]
    is_reference: bool = False
    unavailable: frozenset[str] = frozenset()
    begun: int = 0

    @property
    def size(self) -> str:
        """N as seeds x prompts x candidates; "not run", or "none finished", where there is none."""
        if self.arm:
            return sample_size(len(self.seeds), self.num_prompts, self.num_candidates)
        return "none finished" if self.begun else "not run"

    def size_in(self, columns: Sequence[Column]) -> str:
        """N of some columns; where they differ, as in "5 x 64 x 1; 5 x 256 x 3", those of few prompts first."""
        entries = [self.entries[column.key] for column in columns if column.key in self.entries]
        # A value per seed has no prompts of its own.
        sizes = {(e.num_seeds, e.num_prompts, e.num_candidates) for e in entries if e.num_prompts > 1}
        return "; ".join(sample_size(*size) for size in sorted(sizes, key=lambda size: size[1:])) or self.size

    @property
    def finished(self) -> str:
        """As in "4 of 5": seeds that finished, of those that were begun. "not run" where none was."""
        return f"{len(self.seeds)} of {max(self.begun, len(self.seeds))}" if self.begun or self.seeds else "not run"

    @property
    def lacks_seeds(self) -> bool:
        return self.begun > len(self.seeds)

    def absent(self, column: Column) -> str:
        """What stands in place of a value that there is not."""
        return NOT_AVAILABLE if column.metric in self.unavailable else ABSENT


def rows_of(
    labels: Mapping[str, str],
    sources: Mapping[str, Source],
    reference: str,
    columns: Sequence[Column],
    begun: Mapping[str, int] | None = None,
    alike: bool = False,
) -> list[Row]:
    """The rows of a table, in the order of `labels`; `sources` has those that there are cells of, `begun` the seeds that were begun.

    `alike`: the rows are arms of one kind, compared over the candidates that all of them have; else over those that two of them have.
    """
    rows = []
    fewest = {c.key: fewest_candidates(c, list(sources.values())) if alike else MANY for c in columns}
    for key, label in labels.items():
        cells, condition = sources.get(key, ({}, ""))
        against = sources.get(reference) if key != reference else None
        found = {column.key: _entry(column, (cells, condition), against, fewest[column.key]) for column in columns}
        entries = {name: entry for name, entry in found.items() if entry is not None}
        rows.append(
            Row(
                key=key,
                label=label,
                arm=next((cell.arm for cell in cells.values()), ""),
                seeds=tuple(sorted(cells)),
                num_prompts=max((entry.num_prompts for entry in entries.values()), default=0),
                num_candidates=max((cell.num_candidates(condition) for cell in cells.values()), default=0),
                entries=entries,
                is_reference=key == reference,
                unavailable=frozenset(name for cell in cells.values() for name in cell.unavailable),
                begun=(begun or {}).get(key, len(cells)),
            )
        )
    return _holm_corrected(_pooled(rows, sources, reference, columns, fewest) if alike else rows, columns)


def _pooled(
    rows: list[Row], sources: Mapping[str, Source], reference: str, columns: Sequence[Column], fewest: Mapping[str, int]
) -> list[Row]:
    """The rows with their differences' intervals from the spread that the arms share (`measuring.measure`), where they share it."""
    entries = {row.key: dict(row.entries) for row in rows}
    for column in columns:
        scores = {key: scores_of(column, source, fewest[column.key]) for key, source in sources.items()}
        arms = {key: _arm(key, column.metric, found) for key, found in scores.items() if found is not None}
        for key, own in measure(Comparison("", "", reference, arms), column.metric).items():
            entry = entries[key].get(column.key)
            if entry is None or entry.difference is None or own.pooled_arms is None:
                continue
            low, high = (float(end) for end in own.estimate.interval())
            pooled = dataclasses.replace(
                entry.difference,
                low=low,
                high=high,
                standard_error=float(own.estimate.error),
                p_value=float(own.estimate.p_value()),
                degrees_of_freedom=freedom_of_quantile(float(own.estimate.quantile())),
            )
            entries[key][column.key] = dataclasses.replace(entry, difference=pooled, pooled_arms=own.pooled_arms)
    return [dataclasses.replace(row, entries=entries[row.key]) for row in rows]


def _arm(key: str, metric: str, scores: pd.DataFrame) -> Arm:
    seeds, prompts = tuple(int(seed) for seed in scores.index), tuple(map(str, scores.columns))
    return Arm(key, key, {metric: Scores(scores.to_numpy(), seeds, prompts)}, seeds)


def fewest_candidates(column: Column, sources: Sequence[Source]) -> int:
    """How many candidates of a prompt every one of the sources has a metric's value of."""
    counts = (cell.num_candidates(column.condition or condition, column.metric) for cells, condition in sources for cell in cells.values())
    return min((count for count in counts if count), default=MANY)


def _entry(column: Column, own: Source, reference: Source | None, candidates: int) -> Entry | None:
    """A row's mean in one metric over at most so many candidates, and its difference from the reference's, over those that both have; None
    where it was not scored."""
    scores = scores_of(column, own, candidates)
    if scores is None or (is_shared_noise(own[1]) and column.block == QUALITY):  # shared noise is there for diversity alone
        return None
    num_candidates = min(candidates, fewest_candidates(column, [own]))
    by_seed = tuple(float(value) for value in scores.mean(axis="columns"))
    entry = Entry(float(scores.to_numpy().mean()), *scores.shape, num_candidates=num_candidates, by_seed=by_seed)
    if len(scores) >= MIN_SEEDS:
        around = paired_difference(scores.to_numpy(), np.zeros(scores.shape))
        entry = dataclasses.replace(entry, interval=(around.low, around.high))
    if reference is None:
        return entry
    shared = min(num_candidates, fewest_candidates(column, [reference]))
    scores, others = scores_of(column, own, shared), scores_of(column, reference, shared)
    if scores is None or others is None:
        return entry
    seeds, prompts = scores.index.intersection(others.index), scores.columns.intersection(others.columns)
    if not len(seeds) or not len(prompts):
        return entry
    a, b = (table.loc[seeds, prompts].to_numpy() for table in (scores, others))
    difference = paired_difference(a, b) if len(seeds) >= MIN_SEEDS else None
    note = difference.note if difference else ""
    if column.metric == STYLE_ENTROPY:
        note = note.replace("one prompt: interval over seeds only", _SEED_ONLY)
    return dataclasses.replace(
        entry,
        difference=difference,
        difference_mean=float((a - b).mean()),
        shared_seeds=len(seeds),
        note=note,
        differences_by_seed=tuple(float(value) for value in (a - b).mean(axis=1)),
    )


def scores_of(column: Column, source: Source, candidates: int) -> pd.DataFrame | None:
    """Scores (seeds, prompts) over the seeds that have the metric and the prompts that all of these have, and at most so many candidates;
    None where there are none."""
    cells, condition = source
    if not cells:
        return None
    kept = next(iter(cells.values())).tables
    name = (column.metric, column.condition or condition, candidates, tuple((cell.arm, seed) for seed, cell in cells.items()))
    if name not in kept:
        kept[name] = _read(column.metric, column.condition or condition, cells, candidates)
    return kept[name]


def _read(metric: str, condition: str, cells: Mapping[int, FinishedCell], candidates: int) -> pd.DataFrame | None:
    by_seed = {seed: cell.values(metric, condition, candidates) for seed, cell in sorted(cells.items())}
    by_seed = {seed: values for seed, values in by_seed.items() if values is not None}
    if not by_seed:
        return None
    table = pd.DataFrame(by_seed).T.dropna(axis="columns")
    return table if table.size else None


def _holm_corrected(rows: list[Row], columns: Sequence[Column]) -> list[Row]:
    """The rows with each metric's p-values corrected for the number of rows that were compared in it."""
    entries = {row.key: dict(row.entries) for row in rows}
    for column in columns:
        tested = [row.key for row in rows if (entry := row.entries.get(column.key)) and entry.difference]
        if tested:
            corrected = holm([entries[key][column.key].difference.p_value for key in tested])
            for key, p_value in zip(tested, corrected, strict=True):
                entries[key][column.key] = dataclasses.replace(entries[key][column.key], p_holm=float(p_value))
    return [dataclasses.replace(row, entries=entries[row.key]) for row in rows]

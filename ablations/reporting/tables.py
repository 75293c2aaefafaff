"""Tables: for every row and metric the mean, and the paired difference from the reference row with its interval and p-value."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ablations.metrics.base import NOT_AVAILABLE
from ablations.reporting.collect import MANY, FinishedCell, Section
from ablations.reporting.columns import DIVERSITY, QUALITY, STYLE_ENTROPY, Column, columns_of
from ablations.reporting.formats import ABSENT, sample_size
from ablations.reporting.layouts import LAYOUTS, Family, Layout, families, held_fixed, is_full
from ablations.reporting.reference import Line, lines_of
from ablations.reporting.statistics import MIN_SEEDS, RECOMMENDED_SEEDS, Difference, holm, paired_difference
from ablations.results.conditions import FINE, all_conditions, in_tables, is_shared_noise

CONDITIONS_ID, CONDITIONS_PLOTS = "conditions", ("fidelity", "words_drawn", "subject_kept", "musiq-koniq", "musiq-ava")
_ENTROPY_NOTE = "Style entropy is one value per seed: its interval is a paired t interval over seeds."
# Cells by seed, and the condition that is read of them.
Source = tuple[Mapping[int, FinishedCell], str]
_SEED_ONLY = "a value per seed: interval over seeds only"


@dataclass(frozen=True)
class Entry:
    """A row's value of one metric.

    `interval` is that of the mean, for new seeds and prompts. `difference` is row minus reference, over the seeds and prompts that
    both have; below MIN_SEEDS seeds there is only its mean, `difference_mean`. `p_holm` is corrected for the table's rows. `by_seed` and
    `differences_by_seed` are the means of single seeds, in their order, of which the two are made.
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
        sizes = {(e.num_seeds, e.num_prompts, e.num_candidates) for e in entries if e.num_prompts > 1 or len(entries) == 1}
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


@dataclass(frozen=True)
class ReportTable:
    """A table of the report. `layout` is the id of its kind; `slug` names it uniquely within the report; `family` says what sets it
    apart from its likes; `fixed` what all of its rows share. `plots` are the keys of the columns worth drawing, `lines` what a value can be
    held against."""

    slug: str
    layout: str
    title: str
    condition: str
    family: str
    fixed: str
    reference: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    plots: tuple[str, ...]
    lines: tuple[Line, ...] = ()

    def block(self, name: str) -> list[Column]:
        return [column for column in self.columns if column.block == name]

    @property
    def blocks(self) -> list[tuple[str, list[Column]]]:
        """The halves of the table that have columns."""
        return [(name, self.block(name)) for name in (QUALITY, DIVERSITY) if self.block(name)]

    def notes_of(self, columns: Sequence[Column]) -> list[str]:
        """The notes of a block: the table's, and what its columns need."""
        own = [_ENTROPY_NOTE] if any(column.metric == STYLE_ENTROPY for column in columns) else []
        return [*self.notes, *own]

    def rows_of(self, columns: Sequence[Column]) -> list[Row]:
        """The rows of a block: those with a value in it, and those that nobody ran."""
        return [row for row in self.rows if not row.arm or any(c.key in row.entries or c.metric in row.unavailable for c in columns)]

    def lines_of(self, columns: Sequence[Column]) -> list[Line]:
        """The reference lines of a block: those with a value in it."""
        return [line for line in self.lines if any(column.key in line.values for column in columns)]

    def row(self, key: str) -> Row | None:
        return next((row for row in self.rows if row.key == key), None)

    @property
    def plotted(self) -> list[Column]:
        return [column for key in self.plots for column in self.columns if column.key == key]


def tables_of(section: Section) -> list[ReportTable]:
    """Every table of a section; the comparison of conditions, for the arms that the others are compared with, first."""
    ablations, references = [], []
    for layout in LAYOUTS:
        for number, family in enumerate(families(layout, section.cells, section.unfinished)):
            reference = family.rows.get(layout.reference)
            references += [reference] if reference else []
            for condition in layout.conditions:
                ablations += _ablation_table(section, layout, family, condition, number)
    comparisons = [_condition_table(section, arm, number) for number, arm in enumerate(_compared_arms(section, references))]
    return [*comparisons, *ablations]


def _compared_arms(section: Section, references: list[Mapping[int, FinishedCell]]) -> list[Mapping[int, FinishedCell]]:
    """The full arms that others are compared with; where there is none, the full arm (else any arm) with the most seeds."""
    by_arm: dict[str, Mapping[int, FinishedCell]] = {}
    for cells in references:
        first = next(iter(cells.values()))
        if is_full(first.settings):
            by_arm.setdefault(first.arm, cells)
    if by_arm:
        return list(by_arm.values())
    arms: dict[str, dict[int, FinishedCell]] = {}
    for cell in section.cells:
        arms.setdefault(cell.arm, {})[cell.seed] = cell
    return [max(arms.values(), key=lambda cells: (is_full(next(iter(cells.values())).settings), len(cells)))]


def _ablation_table(section: Section, layout: Layout, family: Family, condition: str, number: int) -> list[ReportTable]:
    """The table of a family in one condition; empty where no cell of it was drawn in that condition."""
    sources = {key: (cells, condition) for key, cells in family.rows.items()}
    if not any(cell.num_candidates(condition) for cells in family.rows.values() for cell in cells.values()):
        return []
    columns = _columns(section, sources, condition)
    labels = {key: layout.label(key) for key in family.ordered_keys()}
    rows = _rows(labels, sources, layout.reference, columns, family.begun)
    what = plural(all_conditions()[condition].title)
    return [
        ReportTable(
            slug=_slug(section, layout.id, condition, number),
            layout=layout.id,
            title=f"{layout.title}: {what}",
            condition=condition,
            family=family.name,
            fixed=held_fixed(family.fixed),
            reference=labels[layout.reference],
            columns=tuple(columns),
            rows=tuple(rows),
            notes=tuple(_notes(rows, columns, labels[layout.reference])),
            plots=layout.plots,
            lines=_lines(rows, columns, family.rows.get(layout.reference, {})),
        )
    ]


def _lines(rows: Sequence[Row], columns: Sequence[Column], reference: Mapping[int, FinishedCell]) -> tuple[Line, ...]:
    means = next(({key: entry.mean for key, entry in row.entries.items()} for row in rows if row.is_reference), {})
    fine = {column.key: _scores(column, (reference, FINE), MANY) for column in columns if not column.condition}
    return lines_of(columns, means, {key: float(scores.to_numpy().mean()) for key, scores in fine.items() if scores is not None})


def plural(title: str) -> str:
    """A condition's title for many prompts, as in "coarse prompts, drawn with the trained E_T"."""
    return re.sub(r"^([^,:]*?)\bprompt\b", r"\1prompts", title)


def _condition_table(section: Section, cells: Mapping[int, FinishedCell], number: int) -> ReportTable:
    """One arm: coarse, refined, rewritten and fine prompts and the controls, each against the refined prompts."""
    first = next(iter(cells.values()))
    present = {condition for cell in cells.values() for condition in cell.conditions}
    titles = {condition.name: condition.title for condition in in_tables()}
    ordered = [name for name in titles if name in present] + sorted(present - set(titles))
    labels = {name: titles.get(name, name) for name in ordered}
    sources = {name: (cells, name) for name in ordered}
    columns = _columns(section, sources, "")
    begun = len(cells) + sum(item.arm == first.arm for item in section.unfinished)
    rows = _rows(labels, sources, "refined", columns, dict.fromkeys(ordered, begun))
    return ReportTable(
        slug=_slug(section, CONDITIONS_ID, "", number),
        layout=CONDITIONS_ID,
        title="Coarse, refined and fine prompts, and controls",
        condition="",
        family=f"arm {first.arm}",
        fixed=held_fixed(first.settings),
        reference=labels.get("refined", "refined prompt"),
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(*_notes(rows, columns, "refined prompt"), *_condition_notes(ordered)),
        plots=CONDITIONS_PLOTS,
        lines=_lines(rows, columns, {}),
    )


def _condition_notes(names: Sequence[str]) -> list[str]:
    """What the conditions' own rows say of them."""
    return [f"{condition.title}: {condition.note}" for condition in in_tables() if condition.note and condition.name in names]


@dataclass(frozen=True)
class Heading:
    """What a table is called: the name of its files, its title, the key of the row that the others are compared with, what all rows have
    in common, and the notes that come first."""

    slug: str
    title: str
    reference: str
    fixed: str
    notes: Sequence[str] = ()


def table_of_rows(section: Section, heading: Heading, labels: Mapping[str, str], sources: Mapping[str, Source]) -> ReportTable:
    """A table of any rows: `labels` and `sources`, cells by seed with the condition that is read, by row key."""
    reference = heading.reference
    columns = _columns(section, sources, sources[reference][1])
    rows = _rows(labels, sources, reference, columns)
    return ReportTable(
        slug=heading.slug,
        layout=heading.slug,
        title=heading.title,
        condition=sources[reference][1],
        family="",
        fixed=heading.fixed,
        reference=labels[reference],
        columns=tuple(columns),
        rows=tuple(rows),
        notes=(*heading.notes, *_notes(rows, columns, labels[reference])),
        plots=(),
    )


def _slug(section: Section, layout: str, condition: str, number: int) -> str:
    parts = [section.slug, layout, condition, str(number + 1) if number else ""]
    return "-".join(part for part in parts if part).replace("_", "-")


def _columns(section: Section, sources: Mapping[str, Source], condition: str) -> list[Column]:
    cells = [cell for cells, _ in sources.values() for cell in cells.values()]
    per_image, per_set = (set().union(*names) for names in zip(*(cell.metrics() for cell in cells), strict=True))
    unavailable = {name for cell in cells for name in cell.unavailable}
    offered = columns_of(per_image | unavailable - per_set, per_set, section.is_tiny, condition)
    return [c for c in offered if c.metric in unavailable or any(_scored(c, cells, own) for cells, own in sources.values())]


def _scored(column: Column, cells: Mapping[int, FinishedCell], condition: str) -> bool:
    return any(cell.values(column.metric, column.condition or condition) is not None for cell in cells.values())


def _rows(
    labels: Mapping[str, str],
    sources: Mapping[str, Source],
    reference: str,
    columns: Sequence[Column],
    begun: Mapping[str, int] | None = None,
) -> list[Row]:
    rows = []
    # Arms are compared over the candidates that all of them have; conditions over those that two of them have.
    of_one_condition = len({condition for _, condition in sources.values()}) == 1
    fewest = {c.key: _fewest_candidates(c, list(sources.values())) if of_one_condition else MANY for c in columns}
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
    return _holm_corrected(rows, columns)


def _fewest_candidates(column: Column, sources: Sequence[Source]) -> int:
    """How many candidates of a prompt every one of the sources has a metric's value of."""
    counts = (cell.num_candidates(column.condition or condition, column.metric) for cells, condition in sources for cell in cells.values())
    return min((count for count in counts if count), default=MANY)


def _entry(column: Column, own: Source, reference: Source | None, candidates: int) -> Entry | None:
    """A row's mean in one metric over at most so many candidates, and its difference from the reference's, over those that both have; None
    where it was not scored."""
    scores = _scores(column, own, candidates)
    if scores is None or (is_shared_noise(own[1]) and column.block == QUALITY):  # shared noise is there for diversity alone
        return None
    num_candidates = min(candidates, _fewest_candidates(column, [own]))
    by_seed = tuple(float(value) for value in scores.mean(axis="columns"))
    entry = Entry(float(scores.to_numpy().mean()), *scores.shape, num_candidates=num_candidates, by_seed=by_seed)
    if len(scores) >= MIN_SEEDS:
        around = paired_difference(scores.to_numpy(), np.zeros(scores.shape))
        entry = dataclasses.replace(entry, interval=(around.low, around.high))
    if reference is None:
        return entry
    shared = min(num_candidates, _fewest_candidates(column, [reference]))
    scores, others = _scores(column, own, shared), _scores(column, reference, shared)
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


def _scores(column: Column, source: Source, candidates: int) -> pd.DataFrame | None:
    """Scores (seeds, prompts) over the seeds that have the metric and the prompts that all of these have, and at most so many candidates;
    None where there are none."""
    cells, condition = source
    by_seed = {seed: cell.values(column.metric, column.condition or condition, candidates) for seed, cell in sorted(cells.items())}
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


def _notes(rows: Sequence[Row], columns: Sequence[Column], reference: str) -> list[str]:
    run = [row for row in rows if row.arm]
    fewest = min((len(row.seeds) for row in run), default=0)
    compared = [entry for row in run for entry in row.entries.values() if entry.difference_mean is not None]
    few = [row for row in run if row.seeds and len(row.seeds) < MIN_SEEDS]
    notes = [f"{row.label}: {row.finished} seeds finished." for row in rows if row.lacks_seeds]
    if few:
        which = "any row" if len(few) == len(run) else ", ".join(row.label for row in few)
        counts = " or ".join(str(count) for count in sorted({len(row.seeds) for row in few}))
        notes.append(
            f"No interval for {which}: {counts} of the {MIN_SEEDS} seeds that it needs. Seeds differ by more than the prompts of one seed "
            "show, and so few do not tell by how much. Run more seeds."
        )
    if MIN_SEEDS <= fewest < RECOMMENDED_SEEDS:
        notes.append(f"{fewest} seeds: for a headline table {RECOMMENDED_SEEDS} are recommended, as intervals get much narrower.")
    if not any(row.is_reference and row.arm for row in rows):
        notes.append(f"No differences: the row that the others are compared with ({reference}) was not run.")
    elif compared and any(0 < entry.shared_seeds < MIN_SEEDS for entry in compared) and not few:
        notes.append(f"Some rows share fewer than {MIN_SEEDS} seeds with the reference: their differences have no interval.")
    if any("every difference is equal" in entry.note for row in run for entry in row.entries.values()):
        notes.append("Where every difference is equal there is no spread to estimate an interval from: it is shown as a point.")
    return notes

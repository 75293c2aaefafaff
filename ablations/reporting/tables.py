"""Tables: which rows stand together, in which condition, what they are held against and what has to be said of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablations.reporting.collect import MANY, FinishedCell, Section
from ablations.reporting.columns import DIVERSITY, QUALITY, STYLE_ENTROPY, Column, columns_of
from ablations.reporting.layouts import LAYOUTS, PLACEBO, Family, Layout, families, held_fixed, is_full
from ablations.reporting.reference import Line, lines_of
from ablations.reporting.rows import Row, Source, rows_of, scores_of
from ablations.reporting.statistics import MIN_SEEDS, RECOMMENDED_SEEDS
from ablations.results.conditions import FINE, all_conditions, in_tables

PLACEBO_NOTE = "Placebo: the reference with the weight of L_clip changed in the fifth digit, which must not matter."
CONDITIONS_ID, CONDITIONS_PLOTS = "conditions", ("fidelity", "words_drawn", "subject_kept", "musiq-koniq", "musiq-ava")
_ENTROPY_NOTE = "Style entropy is one value per seed: its interval is a paired t interval over seeds."


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
    comparisons = [_condition_table(section, arm, number) for number, arm in enumerate(compared_arms(section, references))]
    return [*comparisons, *ablations]


def compared_arms(section: Section, references: list[Mapping[int, FinishedCell]]) -> list[Mapping[int, FinishedCell]]:
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
    rows = rows_of(labels, sources, layout.reference, columns, _begun(section, family), alike=True)
    what = plural(all_conditions()[condition].title)
    return [
        ReportTable(
            slug=slug_of(section, layout.id, condition, number),
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


def _begun(section: Section, family: Family) -> dict[str, int]:
    """By row: the seeds that were begun, and at least those that were registered for its arm."""
    arms = {key: next(iter(cells.values())).arm for key, cells in family.rows.items()}
    return {key: max(count, section.planned.get(arms.get(key, ""), 0)) for key, count in family.begun.items()}


def _lines(rows: Sequence[Row], columns: Sequence[Column], reference: Mapping[int, FinishedCell]) -> tuple[Line, ...]:
    means = next(({key: entry.mean for key, entry in row.entries.items()} for row in rows if row.is_reference), {})
    fine = {column.key: scores_of(column, (reference, FINE), MANY) for column in columns if not column.condition}
    drawn = {key: float(scores.to_numpy().mean()) for key, scores in fine.items() if scores is not None}
    settings = next(iter(reference.values())).settings if reference else {}
    number = settings.get("data.world", 1) if settings.get("data.source") == "tiny" else None
    candidates = max((row.num_candidates for row in rows), default=1)
    return lines_of(columns, means, drawn, None if number is None else int(number), candidates)


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
    begun = max(len(cells) + sum(item.arm == first.arm for item in section.unfinished), section.planned.get(first.arm, 0))
    rows = rows_of(labels, sources, "refined", columns, dict.fromkeys(ordered, begun))
    return ReportTable(
        slug=slug_of(section, CONDITIONS_ID, "", number),
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
        lines=_lines(rows, columns, cells),
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
    rows = rows_of(labels, sources, reference, columns)
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


def slug_of(section: Section, layout: str, condition: str, number: int) -> str:
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


def _notes(rows: Sequence[Row], columns: Sequence[Column], reference: str) -> list[str]:
    run = [row for row in rows if row.arm]
    fewest = min((len(row.seeds) for row in run), default=0)
    compared = [entry for row in run for entry in row.entries.values() if entry.difference_mean is not None]
    few = [row for row in run if row.seeds and len(row.seeds) < MIN_SEEDS]
    notes = [f"{row.label}: {row.finished} seeds finished." for row in rows if row.lacks_seeds]
    notes += [PLACEBO_NOTE] if any(row.key == PLACEBO and row.arm for row in rows) else []
    notes += _pool_note(rows, columns)
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


def _pool_note(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """How many arms' spread is behind the intervals, and which rows have intervals of their own, in which columns."""
    counts = {entry.pooled_arms for row in rows for entry in row.entries.values() if entry.pooled_arms}
    if not counts:
        return []
    most = f"{min(counts)} to {max(counts)}" if len(counts) > 1 else str(max(counts))
    pooled = {key for row in rows for key, entry in row.entries.items() if entry.pooled_arms}
    alone = {
        row.label: [c.heading for c in columns if c.key in pooled and (e := row.entries.get(c.key)) and e.difference and not e.pooled_arms]
        for row in rows
    }
    apart = [f"{label} ({', '.join(headings)})" for label, headings in alone.items() if headings]
    left_out = f" Rows of other spread, seeds or prompts have their own: {'; '.join(apart)}." if apart else ""
    return [f"Intervals rest on the spread that {most} arms share.{left_out}"]

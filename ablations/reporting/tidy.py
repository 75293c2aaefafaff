"""Tables as tidy CSV: a line for each row and metric, figures in full precision; and lists of the verdicts and of the cells."""

from __future__ import annotations

from collections.abc import Iterable

from ablations.metrics.base import NOT_AVAILABLE
from ablations.reporting.assembly import Report
from ablations.reporting.columns import Column
from ablations.reporting.rows import Row
from ablations.reporting.tables import ReportTable
from ablations.reporting.verdicts import load_published

TABLE_COLUMNS = (
    *(
        "table",
        "family",
        "condition",
        "row",
        "label",
        "arm",
        "seeds",
        "seeds_begun",
        "prompts",
        "candidates",
        "metric",
        "read_in",
        "better",
    ),
    *("mean", "mean_low", "mean_high", "reference", "shared_seeds", "difference", "low", "high", "standard_error"),
    *("degrees_of_freedom", "p_value", "p_holm", "published", "note"),
)
VERDICT_COLUMNS = (
    *("section", "claim", "condition", "is_primary", "verdict", "p_value", "p_holm", "title", "paper", "evidence", "marks", "check"),
    *("positive_control", "placebo", "scope", "table"),
)
CELL_COLUMNS = ("cell", "status", "section", "profile", "data_digest", "weights_digest", "code_revision", "note")
BEST_COLUMNS = (
    "table",
    "condition",
    "metric",
    "read_in",
    "better",
    "of_rows",
    "label",
    "arm",
    "seeds",
    "prompts",
    "mean",
    "low",
    "high",
    "lead",
)
Lines = list[tuple]


def table_lines(table: ReportTable) -> Lines:
    """The table as tuples of TABLE_COLUMNS; a metric that a row has no value of is left out, unless it was asked for and is not
    available; a row that was not run has no metric."""
    lines = []
    for row in table.rows:
        scored = [column for column in table.columns if column.key in row.entries]
        lines += [_line(table, row, column) for column in scored] if row.arm else [_not_run(table, row)]
        lines += [_not_available(table, row, c) for c in table.columns if c.metric in row.unavailable and c.key not in row.entries]
    return lines


def _not_run(table: ReportTable, row: Row) -> tuple:
    start = (table.layout, table.family, table.condition, row.key, row.label, "", 0, row.begun, 0, 0)
    return (*start, *[None] * (len(TABLE_COLUMNS) - len(start) - 1), f"{row.finished} seeds finished" if row.begun else "not run")


def _not_available(table: ReportTable, row: Row, column: Column) -> tuple:
    seeds = (len(row.seeds), row.begun)
    start = (table.layout, table.family, table.condition, row.key, row.label, row.arm, *seeds, row.num_prompts, row.num_candidates)
    start = (*start, column.metric, column.condition, column.better)
    return (*start, *[None] * (len(TABLE_COLUMNS) - len(start) - 1), NOT_AVAILABLE)


def _line(table: ReportTable, row: Row, column: Column) -> tuple:
    entry = row.entries[column.key]
    published = load_published()["tables"].get(table.layout, {}).get(row.key) or {}
    difference = entry.difference
    return (
        *(table.layout, table.family, table.condition, row.key, row.label, row.arm, entry.num_seeds, row.begun, entry.num_prompts),
        *(entry.num_candidates, column.metric, column.condition, column.better, entry.mean, *(entry.interval or (None, None))),
        *(table.reference, entry.shared_seeds if not row.is_reference else None, entry.difference_mean),
        *((difference.low, difference.high, difference.standard_error) if difference else (None,) * 3),
        *((difference.degrees_of_freedom, difference.p_value) if difference else (None,) * 2),
        *(entry.p_holm, published.get(column.metric), entry.note),
    )


def verdict_lines(report: Report) -> Lines:
    """Every verdict as a tuple of VERDICT_COLUMNS."""
    lines: Lines = []
    for section, v in report.verdicts:
        judged = (v.claim.id, v.condition, v.is_primary, v.verdict, v.p_value, v.p_holm, v.claim.title, v.claim.paper, v.line)
        outcomes = [outcome and f"{outcome.state}: {outcome.text}".rstrip(": ") for outcome in (v.check, v.control, v.placebo)]
        lines.append((section.section.slug, *judged, "; ".join(v.marks), *outcomes, v.scope, v.table))
    return lines


def cell_lines(report: Report) -> Lines:
    """Every cell that was found as a tuple of CELL_COLUMNS: those in tables, and those left out with the reason."""
    lines: Lines = []
    for section in report.sections:
        for cell in section.section.cells:
            note = "in no comparison of arms" if cell.arm in section.in_no_table else ""
            digests = (cell.data_digest, cell.weights_digest, cell.code_revision)
            lines.append((f"{cell.arm}/seed-{cell.seed}", "finished", section.section.slug, cell.profile, *digests, note))
    return lines + [(item.name, item.status, None, None, None, None, None, item.reason) for item in report.collection.left_out]


def best_lines(tables: Iterable[ReportTable]) -> Lines:
    """For every table and metric that has a better side, the row with the best mean, as tuples of BEST_COLUMNS.

    `lead` is by how much it is better than the next one. The best of several means is too good by chance: the interval is that of the row
    alone, and what decides between rows are the tables' differences. A metric with a value in one row only has no best one.
    """
    lines: Lines = []
    for table in tables:
        for column in (column for column in table.columns if column.better):
            rows = [row for row in table.rows if row.arm and column.key in row.entries]
            sign = 1 if column.better == "higher" else -1
            rows.sort(key=lambda row: (-sign * row.entries[column.key].mean, row.key))
            if len(rows) < 2:
                continue
            best, entry = rows[0], rows[0].entries[column.key]
            lead = abs(entry.mean - rows[1].entries[column.key].mean)
            found = (table.slug, table.condition, column.metric, column.condition, column.better, len(rows), best.label, best.arm)
            lines.append((*found, entry.num_seeds, entry.num_prompts, entry.mean, *(entry.interval or (None, None)), lead))
    return lines

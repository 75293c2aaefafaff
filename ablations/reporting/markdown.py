"""The report as Markdown: verdicts, then for every table its means and its differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ablations.reporting import raw_scores
from ablations.reporting.assembly import STATISTICS_NOTE, Report, SectionReport
from ablations.reporting.checks import CheckTable
from ablations.reporting.claim_lines import where
from ablations.reporting.columns import Column
from ablations.reporting.formats import ABSENT, figure, p_text
from ablations.reporting.matrix import Matrix
from ablations.reporting.registered import Registered
from ablations.reporting.rows import Entry, Row
from ablations.reporting.tables import ReportTable
from ablations.reporting.verdicts import load_published, published
from ablations.runtime.escaping import markdown as as_text


def render(report: Report, figures: dict[str, str]) -> str:
    """The whole report; `figures` gives, by a table's slug, the path of its plots relative to the Markdown file."""
    source = load_published()
    registered = report.registered.line if report.registered else "Not registered."
    parts = ["# Ablation report", f"Made from {as_text(str(report.collection.output_dir.name))}. {as_text(registered)}"]
    parts += [f"> **Note:** {as_text(warning)}" for warning in report.collection.warnings]
    for section in report.sections:
        parts += _section(section, figures)
    parts += _registration(report.registered) if report.registered else []
    parts += ["## About the figures", STATISTICS_NOTE, f"Raw scores: [{raw_scores.FILE}]({raw_scores.FILE})."]
    parts += ["## Published figures", f"{as_text(source['source'])}. {as_text(source['note'])}"]
    rows = [[f["what"], f"{f['value']} {f['unit']}", f["source"]] for f in source["figures"]]
    parts.append(_grid(["figure", "value", "source"], rows))
    if report.forecasts:
        rows = [[f.sweep, f.part, str(f.num_cells), f"{f.forecast:.0f}", f"{f.actual:.0f}"] for f in report.forecasts]
        parts += ["## Forecast against actual time", _grid(["sweep", "part", "cells", "forecast s", "actual s"], rows)]
    if report.collection.left_out:
        parts += [
            "## Cells in no table",
            _grid(["cell", "status", "reason"], [[i.name, i.status, i.reason] for i in report.collection.left_out]),
        ]
    return "\n\n".join(parts) + "\n"


def _section(section: SectionReport, figures: dict[str, str]) -> list[str]:
    parts = [f"## {as_text(section.title)}", f"**{as_text(section.scope)}** {as_text(section.contents)}."]
    if section.section.slug in figures:
        parts.append(f"![Every claim: difference, interval and verdict]({figures[section.section.slug]})")
    parts += ["### Verdicts in plain words", "\n".join(f"- **{as_text(said.title)}**: {as_text(said.sentence)}" for said in section.said)]
    matrix = Matrix.of(section)
    parts += ["### Where the claims hold", _grid(["claim", *matrix.headings], [[title, *cells] for title, cells in matrix.rows])]
    rows = [[f"**{v.verdict}**", as_text(v.claim.title), as_text(where(v.condition)), as_text(v.line)] for v in section.verdicts]
    parts += [
        "### Figures behind the verdicts",
        _grid(["verdict", "claim", "condition", "figures"], rows, escaped=True),
        f"Every verdict is {as_text(section.verdicts[0].scope)}.",
    ]
    parts += _readings(section, figures)
    for table in section.checks:
        parts += _checks(table)
    for table in section.tables:
        parts += _table(table)
        if table.slug in figures:
            parts.append(f"![{as_text(table.title)}: differences with 95% intervals]({figures[table.slug]})")
    if section.in_no_table:
        parts.append(
            f"In no comparison of arms, because no other arm differs from them in one table's keys only: {', '.join(section.in_no_table)}."
        )
    parts += [
        "### Time",
        _grid(["stage", "mean s per cell", "total s"], [[n, f"{m:.1f}", f"{t:.0f}"] for n, m, t in section.seconds_by_stage]),
    ]
    return parts


def _readings(section: SectionReport, figures: dict[str, str]) -> list[str]:
    if not section.readings:
        return []
    rows = [[one.title, where(one.condition), one.count, one.standing] for one in section.readings]
    name = f"{section.section.slug}-readings"
    picture = [f"![Sensitivity to what the paper leaves open]({figures[name]})"] if name in figures else []
    return ["### Sensitivity to what the paper leaves open", *picture, _grid(["claim", "condition", "readings", "others"], rows)]


def _checks(table: CheckTable) -> list[str]:
    rows = [
        [
            row.label + " (reference)" * row.is_reference,
            *(row.checked[check.name].text(check) if check.name in row.checked else ABSENT for check in table.columns),
        ]
        for row in table.rows
    ]
    said = ["\n".join(f"- {as_text(line)}" for line in table.delivered)] if table.delivered else []
    head = ["", *(check.heading for check in table.columns)]
    return [f"### {as_text(table.title)}", "Mean over seeds [least, greatest].", _grid(head, rows), *said]


def _registration(registered: Registered) -> list[str]:
    parts = ["## Registration", as_text(f"{registered.line} {registered.precision}")]
    parts.append("\n".join(f"- {'kept' if item.is_kept else '**not kept**'}: {as_text(item.line)}" for item in registered.kept))
    if registered.undecided:
        rows = [[item.claim, item.condition, item.expected or "not expected"] for item in registered.undecided]
        parts.append(_grid(["undecided", "condition", "what the registration said"], rows))
    if registered.reached:
        rows = [
            [r.claim, r.row, r.condition, r.endpoint, figure(r.predicted, r.digits), figure(r.reached, r.digits), f"{r.ratio:.2f}"]
            for r in registered.reached
        ]
        parts.append(_grid(["claim", "row", "condition", "endpoint", "half-width predicted", "reached", "ratio"], rows))
    return parts


def one_table(table: ReportTable) -> str:
    """A table by itself: its heading, means, differences and notes."""
    return "\n\n".join(_table(table))


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of texts as a Markdown table."""
    return _grid(head, rows)


def _table(table: ReportTable) -> list[str]:
    parts = [
        f"### {as_text(table.title)}" + (f" ({as_text(table.family)})" if table.family else ""),
        f"Held fixed: {as_text(table.fixed)}.",
    ]
    for number, (name, columns) in enumerate(table.blocks):
        last = [] if number else ["published"]
        rows = [[*_means(row, columns), *([] if number else [published(table, row)])] for row in table.rows_of(columns)]
        empty = [""] * len(last)
        rows += [[line.label, "", "", *(line.text(column) for column in columns), *empty] for line in table.lines_of(columns)]
        parts += [f"Means, {name}:", _grid(["", "seeds", "N", *(column.heading for column in columns), *last], rows)]
        rows = [[row.label, *(_difference(row.entries.get(column.key), column) for column in columns)] for row in _compared(table, columns)]
        if rows:
            parts += [f"Differences from {as_text(table.reference)}, {name}:", _grid(["", *(c.heading for c in columns)], rows)]
    notes = table.notes_of(table.columns)
    return [*parts, "\n".join(f"- {as_text(note)}" for note in notes)] if notes else parts


def _means(row: Row, columns: Sequence[Column]) -> list[str]:
    means = [figure(entry.mean, column.digits) if (entry := row.entries.get(column.key)) else row.absent(column) for column in columns]
    return [row.label + " (reference)" * row.is_reference, row.finished, row.size_in(columns), *means]


def _compared(table: ReportTable, columns: Sequence[Column]) -> list[Row]:
    return [row for row in table.rows if any((e := row.entries.get(c.key)) and e.difference_mean is not None for c in columns)]


def _difference(entry: Entry | None, column: Column) -> str:
    if entry is None or entry.difference_mean is None:
        return ABSENT
    text = figure(entry.difference_mean, column.digits, signed=True)
    if entry.difference is None:
        return f"{text} (no interval)"
    low, high = (figure(end, column.digits, signed=True) for end in (entry.difference.low, entry.difference.high))
    return f"{text} [{low}, {high}] {p_text(entry.p_holm)}{' *' * entry.is_significant}"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]], escaped: bool = False) -> str:
    lines = [
        [as_text(heading) for heading in head],
        ["---"] * len(head),
        *([cell if escaped else as_text(cell) for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

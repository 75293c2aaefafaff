"""The report's files: Markdown, one HTML page, a CSV and a LaTeX file for each table, plots. Each appears whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.reporting import charts, claims_plot, curves_pdf, latex, markdown, page, raw_scores, sensitivity, tidy
from ablations.reporting.assembly import Report, SectionReport
from ablations.runtime.errors import UserError
from ablations.runtime.escaping import csv_text
from ablations.runtime.files import whole_file, write_atomically
from ablations.runtime.foreign import is_folder, is_there

MARKDOWN, PAGE, DOCUMENT = "report.md", "report.html", "report.tex"


@dataclass(frozen=True)
class Written:
    """Where the files are: the three main ones, and all of them."""

    folder: Path
    files: tuple[Path, ...]

    @property
    def page(self) -> Path:
        return self.folder / PAGE


def _pictures(section: SectionReport, plots: dict[str, str]) -> dict[str, str]:
    """The section's own pictures by path; their paths are entered in `plots`, as those of tables are."""
    slug = section.section.slug
    found = {}
    if picture := claims_plot.claims_plot(section.lines):
        plots[slug] = f"figures/{slug}-claims.svg"
        found[plots[slug]] = claims_plot.svg_file(picture)
    if section.readings:
        plots[f"{slug}-readings"] = f"figures/{slug}-readings.svg"
        found[plots[f"{slug}-readings"]] = sensitivity.svg_file(section.readings)
    return found


def write(report: Report, to: Path) -> Written:
    """Write every file of the report to a folder, which is made where it is missing.

    Files that an earlier report left there under other names are not touched. Raises UserError where `to` is a file, and
    RunFolderError where nothing can be written.
    """
    if is_there(to) and not is_folder(to):
        raise UserError(f"--to {str(to)!r} is a file: give a folder")
    files: dict[str, str] = {
        "verdicts.csv": csv_text(tidy.VERDICT_COLUMNS, tidy.verdict_lines(report)),
        "cells.csv": csv_text(tidy.CELL_COLUMNS, tidy.cell_lines(report)),
    }
    plots: dict[str, str] = {}
    table_files: dict[str, str] = {}
    curve_files: dict[str, str] = {}
    for section in report.sections:
        files |= _pictures(section, plots)
        for table in section.tables:
            files[f"tables/{table.slug}.csv"] = csv_text(tidy.TABLE_COLUMNS, tidy.table_lines(table))
            table_files[table.slug] = f"tables/{table.slug}.tex"
            files[table_files[table.slug]] = latex.table_file(table, section.section.is_tiny)
            panels = [panel for _, panel in charts.panels_of(table)]
            if panels:
                plots[table.slug] = f"figures/{table.slug}.svg"
                files[plots[table.slug]] = charts.svg_file(panels)
            if curves_pdf.has_curve(table):
                curve_files[table.slug] = f"figures/{table.slug}.pdf"
                with whole_file(to / curve_files[table.slug]) as aside:
                    curves_pdf.draw(table, aside)
    files[DOCUMENT] = latex.document(report, table_files, curve_files)
    files[MARKDOWN] = markdown.render(report, plots)
    files[PAGE] = page.render(report)
    for name, content in files.items():
        write_atomically(to / name, content)
    raw_scores.write(report.collection, to / raw_scores.FILE)
    return Written(to, tuple(to / name for name in [*files, *curve_files.values(), raw_scores.FILE]))

"""The report as one HTML page that needs no network: styles, script, plots and pictures are in the file."""

from __future__ import annotations

from pathlib import Path

from ablations.reporting import charts, claims_plot, sensitivity
from ablations.reporting.assembly import STATISTICS_NOTE, Report, SectionReport
from ablations.reporting.claim_lines import where
from ablations.reporting.columns import Column
from ablations.reporting.formats import figure, p_text
from ablations.reporting.grids import side_by_side
from ablations.reporting.judging import CONTRADICTED, NO_ROOM, NOT_DELIVERED, NOT_MEASURED, REPRODUCED
from ablations.reporting.matrix import Matrix
from ablations.reporting.rows import Entry
from ablations.reporting.tables import ReportTable
from ablations.reporting.verdicts import load_published, published
from ablations.runtime.escaping import escaping_environment

_FOLDER = Path(__file__).parent


def render(report: Report) -> str:
    """The page; every text from the runs (prompts, names, reasons) is escaped."""
    environment = escaping_environment(_FOLDER)
    environment.filters["figure"] = figure
    environment.filters["p_text"] = p_text
    environment.filters["where"] = where
    environment.filters["badge"] = badge
    return environment.get_template("page.html.j2").render(
        report=report,
        sections=[_Section(section, number) for number, section in enumerate(report.sections)],
        statistics_note=STATISTICS_NOTE,
        published_figures=load_published(),
        style=(_FOLDER / "page.css").read_text(encoding="utf-8") + charts.STYLE + claims_plot.STYLE,
        script=(_FOLDER / "page.js").read_text(encoding="utf-8"),
    )


def badge(verdict: str) -> str:
    """The class of a verdict's badge."""
    known = (REPRODUCED, CONTRADICTED, "no effect", NOT_DELIVERED, NO_ROOM, NOT_MEASURED)
    return next((name.replace(" ", "-") for name in known if verdict.startswith(name)), "undecided")


class _Section:
    """What the template shows of a section."""

    def __init__(self, section: SectionReport, number: int) -> None:
        self.report = section
        self.anchor = f"s{number}"
        self.grids = side_by_side(section.section)
        self.tables = [_Table(table) for table in section.tables]
        self.slugs = {table.slug for table in section.tables}
        self.matrix = Matrix.of(section)
        self.readings = [sensitivity.svg(tried) for tried in section.readings]
        picture = claims_plot.claims_plot(section.lines)
        self.forest = picture and claims_plot.svg(picture, f"{section.title}: every claim's difference, its interval and its verdict")


class _Table:
    """What the template shows of a table: blocks of columns, and plots as SVG."""

    def __init__(self, table: ReportTable) -> None:
        self.table = table
        self.blocks = table.blocks
        self.plots = [charts.svg(panel, name) for name, panel in charts.panels_of(table)]

    def published(self, row) -> str:
        return published(self.table, row)

    def standing(self, entry: Entry, column: Column) -> str:
        """ "better", "worse" or "" for a difference that is significant or not."""
        if not entry.is_significant or not column.better:
            return ""
        return "better" if (entry.difference_mean > 0) == (column.better == "higher") else "worse"

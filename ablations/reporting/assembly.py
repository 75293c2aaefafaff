"""The whole report as data: for every section its verdicts, tables, checks and grids, and what stands in none of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.checks import CheckTable, check_tables
from ablations.reporting.claim_lines import claim_lines
from ablations.reporting.claims_plot import ClaimLine
from ablations.reporting.collect import Collection, Section, collect
from ablations.reporting.gathering import plan_of
from ablations.reporting.plain_words import Said, in_plain_words
from ablations.reporting.registered import Registered, registered
from ablations.reporting.sensitivity import Sensitivity, families_of_readings, sensitivities
from ablations.reporting.tables import CONDITIONS_ID, ReportTable, tables_of
from ablations.reporting.verdicts import Verdict, verdicts_of
from ablations.results.registration import Registration, read_registration, registration_of
from ablations.runtime.errors import one_line

STATISTICS_NOTE = (
    "Differences are row minus reference, paired by seed and prompt, over the candidates that both have; prompts with equal text are one "
    "unit. Intervals are 95% t intervals from a crossed seed x prompt variance model, with the spread that a table's arms share where they "
    "share it. They cover new seeds (training, written tokens and image noise in one) and new prompts; they hold fixed the training "
    "records, the backbones and everything that a table holds fixed. p-values beside figures are Holm-corrected for the rows of a table; "
    "* marks p < 0.05. Verdicts have p-values of their own. N = seeds x distinct prompts x candidates. Below 3 seeds there is no "
    "interval; 5 seeds are recommended for a headline table."
)


@dataclass(frozen=True)
class SectionReport:
    """What is said of a section. `verdicts` are those of the tables that are shown, `readings` those of all readings of the method that
    were tried. `in_no_table` names the arms that no table compares with another."""

    section: Section
    tables: tuple[ReportTable, ...]
    verdicts: tuple[Verdict, ...]
    in_no_table: tuple[str, ...]
    checks: tuple[CheckTable, ...] = ()
    readings: tuple[Sensitivity, ...] = ()

    @property
    def title(self) -> str:
        return "Tiny profile" if self.section.is_tiny else f"Profile {self.section.profile}"

    @property
    def scope(self) -> str:
        """What the section's figures are about, for the reader who sees one of them only."""
        tiny = "These results are about the tiny world. They claim nothing about Stable Diffusion 2.1."
        return tiny if self.section.is_tiny else f"These results are about the backbones of profile={self.section.profile}."

    @property
    def contents(self) -> str:
        cells = self.section.cells
        arms, seeds = {cell.arm for cell in cells}, sorted({cell.seed for cell in cells})
        shown = ", ".join(map(str, seeds[:12])) + (", ..." if len(seeds) > 12 else "")
        digests = f"data {self.section.data_digest[:8]}, weights {self.section.weights_digest[:8]}"
        return f"{_count(cells, 'finished cell')}: {_count(arms, 'arm')}, {'seed' if len(seeds) == 1 else 'seeds'} {shown}; {digests}"

    @property
    def lines(self) -> list[ClaimLine]:
        """The lines of the picture that the section opens with."""
        return claim_lines(self.verdicts)

    @property
    def said(self) -> list[Said]:
        """Every claim in a sentence."""
        return in_plain_words(self.verdicts)

    @property
    def seconds_by_stage(self) -> list[tuple[str, float, float]]:
        """(stage, mean seconds of a cell that spent any, total seconds), in the order in which stages run."""
        stages = list(dict.fromkeys(stage for cell in self.section.cells for stage in cell.timings))
        spent = {stage: [cell.timings[stage] for cell in self.section.cells if stage in cell.timings] for stage in stages}
        return [(stage, sum(seconds) / len(seconds), sum(seconds)) for stage, seconds in spent.items()]


@dataclass(frozen=True)
class ForecastPart:
    """Seconds that one part of a sweep's finished cells was forecast to take, and took; `num_cells` have a forecast."""

    sweep: str
    part: str
    num_cells: int
    forecast: float
    actual: float


@dataclass(frozen=True)
class Report:
    """Everything that the files say. `registered` is None where nothing was registered."""

    collection: Collection
    sections: tuple[SectionReport, ...]
    forecasts: tuple[ForecastPart, ...]
    registered: Registered | None = None

    @property
    def verdicts(self) -> list[tuple[SectionReport, Verdict]]:
        return [(section, verdict) for section in self.sections for verdict in section.verdicts]


def _count(items: Sized, word: str) -> str:
    return f"{len(items)} {word}{'s' if len(items) != 1 else ''}"


def assemble(output_dir: Path, registration: Path | None = None) -> Report:
    """Read an output folder and compute every table and verdict.

    `registration`: the file to hold it against; OUTPUT_DIR/registration.json where there is one and none is given. Raises UserError where
    there is nothing to report, and for a registration that cannot be read.
    """
    collection = collect(output_dir)
    plan = read_registration(registration) if registration else registration_of(output_dir)
    forecasts, warnings = _forecasts(output_dir)
    collection = dataclasses.replace(collection, warnings=(*collection.warnings, *warnings))
    seeds = {arm: len(plan.planned.seeds) for arm in plan.planned.arms.values()} if plan else {}
    sections = tuple(_section_report(dataclasses.replace(section, planned=seeds), plan) for section in collection.sections)
    verdicts = [verdict for section in sections if plan_of(plan, section.section) for verdict in section.verdicts]
    return Report(collection, sections, tuple(forecasts), registered(plan, output_dir, verdicts) if plan else None)


def _forecasts(output_dir: Path) -> tuple[list[ForecastPart], list[str]]:
    """Forecast against actual time of every sweep that was planned (OUTPUT_DIR/sweeps/NAME/forecast.json), by part; and warnings."""
    from ablations.sweeping.forecast import forecast_against_actual

    found, warnings = [], []
    for path in sorted(output_dir.glob("sweeps/*/forecast.json")):
        try:
            rows = forecast_against_actual(path.parent)
        except (ValueError, KeyError, TypeError) as error:
            problem = one_line(f"{type(error).__name__}: {error}")
            warnings.append(f"{path} cannot be read ({problem}), so its times are left out: delete it, or plan the sweep again")
            continue
        for part in dict.fromkeys(row["part"] for row in rows):
            own = [row for row in rows if row["part"] == part]
            seconds = (sum(row[name] for row in own) for name in ("forecast", "actual"))
            found.append(ForecastPart(path.parent.name, part, len(own), *seconds))
    return found, warnings


def _section_report(section: Section, registration: Registration | None) -> SectionReport:
    tables = tables_of(section)
    compared = {row.arm for table in tables for row in table.rows if table.layout != CONDITIONS_ID or len(tables) == 1}
    alone = tuple(sorted({cell.arm for cell in section.cells} - compared))
    readings = families_of_readings(section)
    verdicts = verdicts_of(section, plan_of(registration, section), readings.hides)
    # Where many readings were tried, one of them is shown in full; the others have their verdicts, side by side.
    shown = [table for table in tables if not readings.hides(table.layout, table.family)]
    judged = [verdict for verdict in verdicts if not readings.hides(verdict.claim.table, verdict.family)]
    tried = sensitivities(verdicts, readings.settings)
    return SectionReport(section, tuple(shown), tuple(judged), alone, tuple(check_tables(section, verdicts)), tuple(tried))


def all_tables(report: Report) -> Sequence[ReportTable]:
    return [table for section in report.sections for table in section.tables]

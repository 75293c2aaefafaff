"""A report from beginning to end: read, write, say what came out of it and, if asked for, send it to W&B."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ablations.reporting.assembly import Report, assemble
from ablations.reporting.verdicts import summary
from ablations.reporting.writing import write


@dataclass(frozen=True)
class Destination:
    """Where in W&B a report goes, and whether the trained weights of each sweep's best arm go with it."""

    project: str
    entity: str | None = None
    with_weights: bool = False


def make_report(output_dir: Path, to: Path, wandb: Destination | None = None, registration: Path | None = None) -> int:
    """Write the report of an output folder; returns 1 where it could not be sent to W&B, else 0. `registration`: as `assemble` takes it.

    Raises UserError for a folder without cells, and RunFolderError where it cannot be written.
    """
    report = assemble(output_dir, registration)
    written = write(report, to)
    _say(report, to)
    print(f"\nreport: {written.page} and {len(written.files) - 1} other files")
    if wandb is not None:
        from ablations.reporting.send import send

        return 0 if send(report, written, wandb.project, wandb.entity, wandb.with_weights) else 1
    return 0


def _say(report: Report, to: Path) -> None:
    for warning in report.collection.warnings:
        print(f"note: {warning}")
    if report.registered:
        print(report.registered.line)
    for section in report.sections:
        print(f"\n{section.title}: {section.contents}\n{section.scope}")
        for line in summary(section.verdicts):
            print(f"  {line}")
    if report.collection.left_out:
        print(f"\n{len(report.collection.left_out)} of the cells found enter no table: see {to / 'cells.csv'}")

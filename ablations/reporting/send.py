"""The report to W&B: its tables as tables, and all of its files as an artifact, in a run of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.reporting import tidy
from ablations.reporting.assembly import Report, all_tables
from ablations.reporting.writing import Written
from ablations.results.tracking import Tracker, _has_login, resolve_mode
from ablations.runtime.errors import UserError

ARTIFACT, ARTIFACT_TYPE = "ablation-report", "report"


class ReportTracker(Tracker):
    """The W&B run of a report; like any tracker it does nothing before `start`, and no failure of W&B ends the program."""

    @property
    def is_open(self) -> bool:
        """Whether the run is still there: W&B has not failed since it began."""
        return self._run is not None

    def log_tables(self, tables: Mapping[str, tuple[Sequence[str], Iterable[tuple]]]) -> None:
        """Logs tables by name, each as (columns, lines)."""
        import wandb

        made = {name: wandb.Table(columns=list(columns), data=[list(line) for line in lines]) for name, (columns, lines) in tables.items()}
        self._use(lambda run: run.log(made))

    def log_page(self, name: str, page: Path) -> None:
        """Logs an HTML file as a panel."""
        import wandb

        self._use(lambda run: run.log({name: wandb.Html(page.read_text(encoding="utf-8"), inject=False)}))

    def log_files(self, name: str, kind: str, folder: Path, files: Iterable[Path]) -> None:
        """Logs files of a folder as an artifact, under their paths within it."""
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        for file in files:
            artifact.add_file(str(file), name=str(file.relative_to(folder)))
        self._use(lambda run: run.log_artifact(artifact))

    def _use(self, use: Any) -> None:
        if self.is_open:
            self._guard(use)


def send(report: Report, written: Written, project: str, entity: str | None = None) -> bool:
    """Log every table and the page to W&B; whether it took them.

    Does nothing, and says so in one line, where W&B is not online: no login, or WANDB_MODE says offline or disabled.
    """
    try:
        mode = resolve_mode("auto", os.environ, _has_login())
    except UserError as error:
        print(f"W&B: nothing was sent: {error}", file=sys.stderr)
        return False
    if mode != "online":
        print(
            f"W&B: nothing was sent, because it is {mode} here (online needs `wandb login` or WANDB_API_KEY, and WANDB_MODE not against it)"
        )
        return True
    tracker = ReportTracker()
    config = {"output_dir": report.collection.output_dir.name, "sections": [section.section.slug for section in report.sections]}
    tracker.start(config, written.folder, name="ablation report", group="reports", project=project, entity=entity, mode="online")
    tables = {"verdicts": (tidy.VERDICT_COLUMNS, tidy.verdict_lines(report)), "cells": (tidy.CELL_COLUMNS, tidy.cell_lines(report))}
    tables |= {f"tables/{table.slug}": (tidy.TABLE_COLUMNS, tidy.table_lines(table)) for table in all_tables(report)}
    tracker.log_tables(tables)
    tracker.log_page("report", written.page)
    tracker.log_files(ARTIFACT, ARTIFACT_TYPE, written.folder, written.files)
    arrived = tracker.mode == "online" and tracker.is_open
    tracker.finish(exit_code=0 if arrived else 1)
    if arrived:
        print(f"W&B: report sent to {tracker.url}")
    return arrived

"""The report to W&B: its tables as tables, and all of its files as an artifact, in a run of their own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablations.reporting import best_of_sweeps, tidy
from ablations.reporting.assembly import Report, all_tables
from ablations.reporting.writing import Written
from ablations.results.tracking import Asked, Tracker
from ablations.results.wandb_settings import CannotTrack, is_disabled, mode_here, reason_of
from ablations.runtime.quiet_libraries import quiet_libraries

ARTIFACT, ARTIFACT_TYPE = "ablation-report", "report"
# Seconds: sending is what this was asked for.
_FINISH_TIMEOUT = 120.0


class ReportTracker(Tracker):
    """The W&B run of a report; like any tracker it does nothing before `start`, and no failure of W&B ends the program."""

    def log_tables(self, tables: Mapping[str, tuple[Sequence[str], Iterable[tuple]]]) -> None:
        """Logs tables by name, each as (columns, lines)."""
        listed = {name: (list(columns), [list(line) for line in lines]) for name, (columns, lines) in tables.items()}

        def log(run: Any) -> None:
            import wandb

            run.log({name: wandb.Table(columns=columns, data=lines) for name, (columns, lines) in listed.items()})

        self._use(log)

    def log_page(self, name: str, page: Path) -> None:
        """Logs an HTML file as a panel."""

        def log(run: Any) -> None:
            import wandb

            run.log({name: wandb.Html(page.read_text(encoding="utf-8"), inject=False)})

        self._use(log)

    def log_files(self, name: str, kind: str, files: Mapping[str, Path], about: Mapping[str, Any] | None = None) -> None:
        """Logs files as an artifact, by their names within it; `about` is what is said of it."""

        def log(run: Any) -> None:
            import wandb

            artifact = wandb.Artifact(name, type=kind, metadata=dict(about or {}))
            for name_there, file in files.items():
                artifact.add_file(str(file), name=name_there)
            run.log_artifact(artifact)

        self._use(log)


def send(report: Report, written: Written, project: str, entity: str | None = None, with_weights: bool = False) -> bool:
    """Log every table, the page and the best arm of every sweep to W&B; whether it took them. `with_weights`: with what that arm trained.

    Does nothing, and says so in one line, where W&B is not online: no login, or WANDB_MODE says offline or disabled. Raises UserError where
    these weights are not there.
    """
    quiet_libraries()
    try:
        mode = "disabled" if is_disabled("auto", os.environ) else mode_here("auto")
    except Exception as error:  # whatever W&B trips over: the report is written
        print(f"W&B: nothing was sent ({error if isinstance(error, CannotTrack) else reason_of(error)})", file=sys.stderr)
        return False
    if mode != "online":
        print(
            f"W&B: nothing was sent, because it is {mode} here (online needs `wandb login` or WANDB_API_KEY, and WANDB_MODE not against it)"
        )
        return True
    best, without = best_of_sweeps.best_of_sweeps(report.collection.output_dir)
    for line in without:
        print(f"note: {line}")
    files_of_best = [one.files(with_weights) for one in best]
    tracker = ReportTracker(finish_timeout=_FINISH_TIMEOUT)
    config = {"output_dir": report.collection.output_dir.name, "sections": [section.section.slug for section in report.sections]}
    asked = Asked("ablation report", "reports", project, entity, mode="online", is_anew=True, job_type="report")
    tracker.start(config, written.folder, asked)
    tables = {"verdicts": (tidy.VERDICT_COLUMNS, tidy.verdict_lines(report)), "cells": (tidy.CELL_COLUMNS, tidy.cell_lines(report))}
    tables["best_arms"] = (tidy.BEST_COLUMNS, tidy.best_lines(all_tables(report)))
    tables |= {f"tables/{table.slug}": (tidy.TABLE_COLUMNS, tidy.table_lines(table)) for table in all_tables(report)}
    tables |= {"best_of_sweeps": (best_of_sweeps.COLUMNS, [one.line for one in best])} if best else {}
    tracker.log_tables(tables)
    tracker.log_page("report", written.page)
    tracker.log_files(ARTIFACT, ARTIFACT_TYPE, {str(file.relative_to(written.folder)): file for file in written.files})
    for one, files in zip(best, files_of_best, strict=True):
        tracker.log_files(f"best-arm-{one.sweep}", "model", files, dict(zip(best_of_sweeps.COLUMNS, one.line, strict=True)))
    arrived = tracker.wait(_FINISH_TIMEOUT) and tracker.mode == "online"
    url = tracker.url
    tracker.finish(exit_code=0 if arrived else 1)
    arrived = arrived and tracker.mode == "online"
    if arrived:
        print(f"W&B: report sent to {url}")
    return arrived

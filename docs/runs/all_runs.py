"""The verdicts over the seeds of several runs of the deciding sweep together, from the scores that their reports ship.

uv run python docs/runs/all_runs.py                     of docs/runs/first, docs/runs/second and docs/example_report
uv run python docs/runs/all_runs.py REPORT REPORT ...   of other reports on the arms of sweeps/ablation_tables.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path

from ablations.config import to_flat_dict
from ablations.planning.reported import reported_cells
from ablations.reporting.collect import Section
from ablations.reporting.verdicts import Verdict, summary, verdicts_of
from ablations.sweeping.cells import cells_of
from ablations.sweeping.sweep_file import read_sweep_file

ROOT = Path(__file__).parents[2]
RUNS = (ROOT / "docs" / "runs" / "first", ROOT / "docs" / "runs" / "second", ROOT / "docs" / "example_report")


def verdicts(reports: list[Path]) -> list[Verdict]:
    """Of the cells of all reports. Manipulation checks are not among a report's scores, so that every verdict lacks its own."""
    sweep = cells_of(read_sweep_file(ROOT / "sweeps" / "ablation_tables.yaml"))
    settings = {cell.folder.arm: to_flat_dict(cell.config) for cell in sweep.cells}
    cells = [cell for report in reports for cell in reported_cells(report, settings)]
    first = cells[0]
    return verdicts_of(Section(first.profile, first.data_digest, first.weights_digest, tuple(cells)))


if __name__ == "__main__":
    for line in summary(verdicts([Path(word) for word in sys.argv[1:]] or list(RUNS))):
        print(line)

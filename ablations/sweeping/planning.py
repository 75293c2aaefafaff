"""Planning a sweep: its cells, what is there already, and what the rest will cost."""

from __future__ import annotations

import argparse
import math
import time
from typing import TYPE_CHECKING, Any

from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest
from ablations.sweeping.arguments import read_cells
from ablations.sweeping.costs import forecast_sweep
from ablations.sweeping.gpus import jobs_here
from ablations.sweeping.plan_table import show_plan

if TYPE_CHECKING:
    from ablations.sweeping.forecast import CellForecast

_BUDGET = "budget_hours="


def plan_sweep(arguments: argparse.Namespace, stop: StopRequest) -> None:
    """Show a sweep's cells and, unless `arguments.no_probe`, forecast its time and disk.

    Raises UserError for a mistake in the file or the arguments, and for a forecast above the budget.
    """
    began = time.monotonic()
    budget = _take_budget(arguments)
    if budget is not None and arguments.no_probe:
        raise UserError("budget_hours needs a forecast: leave --no-probe out")
    sweep, cells = read_cells(arguments)
    from ablations.runtime.console import Console

    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    finished = {cell.number for cell in cells.cells if cell.folder.is_finished()}
    forecasts: dict[str, CellForecast] = {}
    totals: dict[str, Any] = {}
    if not arguments.no_probe:
        forecasts, totals = forecast_sweep(cells, jobs_here(arguments.jobs, cells.example), console.say, began, finished)
    show_plan(cells, finished, forecasts, totals, console)
    if not totals:
        return
    from ablations.sweeping.forecast import keep_forecast

    keep_forecast(cells.folder, forecasts, totals)
    hours = totals["seconds"] / 3600
    if budget is not None and hours > budget:
        raise UserError(
            f"the forecast of {hours:.2f} h is above budget_hours={budget:g}: sweep fewer seeds or arms, lower train.max_steps or "
            "eval.num_prompts, or raise --jobs"
        )


def _take_budget(arguments: argparse.Namespace) -> float | None:
    """The hours of budget_hours=H, which is no key of the cells and leaves `arguments.keys`."""
    texts = [word.removeprefix(_BUDGET) for word in arguments.keys if word.startswith(_BUDGET)]
    arguments.keys = [word for word in arguments.keys if not word.startswith(_BUDGET)]
    if not texts:
        return None
    try:
        budget = float(texts[-1])
    except ValueError:
        budget = math.nan
    if not (math.isfinite(budget) and budget > 0):
        raise UserError(f"budget_hours must be a number above 0, not {texts[-1]!r}")
    return budget

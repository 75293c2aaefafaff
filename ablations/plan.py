"""`python -m ablations.plan FILE [key=value ...]`: what a sweep would run, what is there already, and how long it will take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import TYPE_CHECKING, Any

from ablations.runtime.errors import RunFolderError, UserError, one_line
from ablations.sweeping.arguments import read_arguments
from ablations.sweeping.costs import forecast_sweep
from ablations.sweeping.plan_table import show_plan

if TYPE_CHECKING:
    from ablations.sweeping.forecast import CellForecast

HELP = """\
usage: python -m ablations.plan FILE [key=value ...] [--jobs N] [--count N] [--no-probe] [budget_hours=H]

Says which cells a sweep has, which of them are finished, what they share, and how much time and disk the rest will take. For that it
times a few training steps, pictures and scores on this machine; the timings are kept in OUTPUT_DIR/cache/probes and used again.

examples:
  python -m ablations.plan sweeps/ablation_tables.yaml
  python -m ablations.plan sweeps/ablation_tables.yaml --jobs 2
  python -m ablations.plan sweeps/losses.yaml seed=0,1,2 budget_hours=2 && python -m ablations.sweep sweeps/losses.yaml seed=0,1,2
  python -m ablations.plan sweeps/prompt_length.yaml --no-probe            the cells alone, at once

  key=value       as for ablations.sweep, and to be given to both alike
  --jobs N        forecast for so many processes (default 1)
  --count N       cells of a random or bayes search, in place of run_cap in the file
  --no-probe      no timing and no forecast
  budget_hours=H  exit code 2 if the forecast is above H hours

The forecast is kept in OUTPUT_DIR/sweeps/NAME/forecast.json, beside what the cells then really take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""


def main(argv: list[str] | None = None) -> int:
    """Show the plan that the arguments describe; returns the exit code."""
    began = time.monotonic()
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    if not argv or any(word in ("--help", "-h", "help") for word in argv):
        print(HELP)
        return 0 if argv else 2
    from ablations.runtime.stopping import Preempted, StopRequest

    stop = StopRequest().install()
    try:
        budget, words = _budget(argv)
        return _plan(words, budget, began)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except Preempted as preempted:
        print("stopped by a signal", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()


def _budget(argv: list[str]) -> tuple[float | None, list[str]]:
    texts = [word.partition("=")[2] for word in argv if word.startswith("budget_hours=")]
    if not texts:
        return None, argv
    try:
        budget = float(texts[-1])
    except ValueError:
        budget = math.nan
    if not (math.isfinite(budget) and budget > 0):
        raise UserError(f"budget_hours must be a number above 0, not {texts[-1]!r}")
    return budget, [word for word in argv if not word.startswith("budget_hours=")]


def _plan(argv: list[str], budget: float | None, began: float) -> int:
    arguments = read_arguments(argv, ("jobs", "count", "search-seed"), ("no-probe",), "ablations.plan")
    if budget is not None and arguments.options.get("no-probe"):
        raise UserError("budget_hours needs a forecast: leave --no-probe out")
    from ablations.sweeping.cells import cells_of
    from ablations.sweeping.sweep_file import read_sweep_file

    sweep = read_sweep_file(arguments.file, arguments.keys)
    cells = cells_of(sweep, arguments.options.get("count"), arguments.options.get("search-seed", 0))
    from ablations.runtime.console import Console

    console = Console(str(sweep.fixed.get("trainer.progress", "auto")))
    forecasts: dict[str, CellForecast] = {}
    totals: dict[str, Any] = {}
    if not arguments.options.get("no-probe"):
        forecasts, totals = forecast_sweep(cells, int(arguments.options.get("jobs", 1)), console.say, began)
    show_plan(cells, forecasts, totals, console)
    if not totals:
        return 0
    from ablations.sweeping.forecast import keep_forecast

    keep_forecast(cells.folder, forecasts, totals)
    hours = totals["seconds"] / 3600
    if budget is not None and hours > budget:
        raise UserError(
            f"the forecast of {hours:.2f} h is above budget_hours={budget:g}: sweep fewer seeds or arms, lower train.max_steps or "
            "eval.num_prompts, or raise --jobs"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

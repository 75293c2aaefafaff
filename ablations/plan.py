"""`python -m ablations.plan FILE [key=value ...]`: what a sweep would run, what is there already, and how long it will take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import run_command
from ablations.sweeping.arguments import sweep_parser
from ablations.sweeping.planning import plan_sweep

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
    parser = sweep_parser("plan", HELP)
    parser.add_argument("--no-probe", action="store_true")
    return run_command(parser, plan_sweep, argv)


if __name__ == "__main__":
    sys.exit(main())

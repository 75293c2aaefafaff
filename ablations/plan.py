"""`python -m ablations.plan FILE [key=value ...]`: what a sweep would run, what is there already, and how long it will take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.planning.making import plan
from ablations.runtime.command_line import run_command
from ablations.sweeping.arguments import sweep_parser

HELP = """\
usage: python -m ablations.plan FILE [key=value ...] [--jobs N] [--count N] [--no-probe] [budget_hours=H]
       python -m ablations.plan FILE [key=value ...] --power [--from DIR] [--keep FILE] [--csv FILE]
       python -m ablations.plan FILE [key=value ...] --register REGISTRATION.json [--from DIR]

Says which cells a sweep has, which of them are finished, what they share, and how much time and disk the rest will take. For that it
times a few training steps, pictures and scores on this machine; the timings are kept in OUTPUT_DIR/cache/probes and used again.

examples:
  python -m ablations.plan sweeps/ablation_tables.yaml
  python -m ablations.plan sweeps/ablation_tables.yaml --jobs 2
  python -m ablations.plan sweeps/losses.yaml seed=0,1,2 budget_hours=2 && python -m ablations.sweep sweeps/losses.yaml seed=0,1,2
  python -m ablations.plan sweeps/prompt_length.yaml --no-probe            the cells alone, at once
  python -m ablations.plan sweeps/ablation_tables.yaml --power --no-probe  what it can decide, and which N each claim needs, at once
  python -m ablations.plan sweeps/ablation_tables.yaml --register registration.json
  python -m ablations.sweep sweeps/ablation_tables.yaml --registration registration.json

  key=value       as for ablations.sweep, and to be given to both alike
  --jobs N        forecast for so many processes (default: as ablations.sweep takes here)
  --count N       cells of a random or bayes search, in place of run_cap in the file
  --no-probe      no timing and no forecast
  budget_hours=H  exit code 2 if the forecast is above H hours

  --power         for each claim what designs of 3 to 10 seeds, 16 to 192 prompts, 1 and 3 candidates can decide: half-width of the
                  interval, chance to find a difference of the declared margin (and 5% of what the fine prompts reach), chance to show
                  "no effect larger than the margin" where there is none, minutes, and the cheapest design that decides it
  --from DIR      variances from the finished cells of an output folder (a pilot: 2 seeds of some arms are enough), from the scores in
                  the folder of a report, or from a file of --keep, in place of those that the package ships. Of these cells variances
                  are shown, never a mean or a difference: who plans must not know yet who wins. So do not report on a pilot.
                  Given several times, for reports on the same data: the seeds of all of them together
  --keep FILE     writes these variances, and what the cells took, to a file
  --csv FILE      writes every contrast in every design
  --register FILE writes claims, endpoints, margins, N, predicted half-widths and digests of code, data and weights, before the first
                  cell: refused where one has begun. Commit the file, then hand it to ablations.sweep; the report says what kept to it

The forecast is kept in OUTPUT_DIR/sweeps/NAME/forecast.json, beside what the cells then really take.

Exit codes: 0, 2 a mistake in the file or the arguments or a forecast above budget_hours, 143 stopped by a signal.
"""


def main(argv: list[str] | None = None) -> int:
    """Show the plan that the arguments describe; returns the exit code."""
    parser = sweep_parser("plan", HELP)
    parser.add_argument("--no-probe", action="store_true")
    parser.add_argument("--power", action="store_true")
    parser.add_argument("--from", type=Path, dest="sources", metavar="DIR", action="append", default=[])
    parser.add_argument("--keep", type=Path, metavar="FILE")
    parser.add_argument("--csv", type=Path, metavar="FILE")
    parser.add_argument("--register", type=Path, metavar="FILE")
    return run_command(parser, plan, argv)


if __name__ == "__main__":
    sys.exit(main())

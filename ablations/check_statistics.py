"""`python -m ablations.check_statistics [--draws N]`: do the report's intervals and p-values hold what they promise?

Simulates studies whose truth is known and counts how often the 95% interval covers it, how wide it is beside the interval of
an oracle that knows the variances, and how often a set of arms without any effect shows one after Holm's correction. Uses the
functions that the report uses. Takes some seconds; exit code 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import sys

from ablations.reporting.statistics_check import coverage, false_alarms, show


def main(argv: list[str] | None = None) -> int:
    """Run the simulation; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ablations.check_statistics", description=__doc__.partition("\n\n")[2], formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000, help="simulated studies per setting (default 2000)")
    draws = parser.parse_args(sys.argv[1:] if argv is None else argv).draws
    if draws < 1:
        parser.error(f"--draws must be at least 1, not {draws}")
    return 0 if show(print, coverage(draws), false_alarms(draws)) else 1


if __name__ == "__main__":
    sys.exit(main())

"""`python -m ablations.check_statistics [--draws N]`: do the report's intervals and p-values hold what they promise?"""

from __future__ import annotations

import argparse
import sys

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command, whole_number
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Simulates studies whose truth is known and counts how often the 95% interval covers it, how wide it is beside the interval of
an oracle that knows the variances, and how often a set of arms without any effect shows one after Holm's correction. Uses the
functions that the report uses. Takes some seconds; exit code 1 where a promise is not kept.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the simulation; returns the exit code."""
    parser = OneLineParser("check_statistics", _DESCRIPTION)
    parser.add_argument("--draws", type=whole_number(1), default=2000, metavar="N", help="simulated studies per setting (%(default)s)")
    return run_command(parser, _check, argv, then="begins anew")


def _check(arguments: argparse.Namespace, stop: StopRequest) -> int:
    from ablations.reporting.statistics_check import coverage, false_alarms, say_what_holds

    return 0 if say_what_holds(print, coverage(arguments.draws), false_alarms(arguments.draws)) else 1


if __name__ == "__main__":
    sys.exit(main())

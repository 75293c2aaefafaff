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
an oracle that knows the variances, and how often a set of arms without any effect shows one after Holm's correction; the same with
the spread of a table's arms pooled, and with seeds that are skewed or collapse; how often "no effect" is said of an effect as large
as the margin, the best of many lengths is ruled out, and looking after every seed finds what is not there; and how often the whole
of it, controls and placebo included, says an effect where there is none. Uses the functions that the report uses. Takes some
minutes; exit code 1 where a promise is not kept.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the simulation; returns the exit code."""
    parser = OneLineParser("check_statistics", _DESCRIPTION)
    parser.add_argument(
        "--draws",
        type=whole_number(1),
        default=2000,
        metavar="N",
        help="simulated studies per setting (%(default)s); a tenth or a half of them where every claim of a study is judged",
    )
    return run_command(parser, _check, argv, then="begins anew")


def _check(arguments: argparse.Namespace, stop: StopRequest) -> int:
    from ablations.reporting.pipeline_check import false_absence, false_effects, true_effects
    from ablations.reporting.pooling_check import (
        best_of_equals,
        collapsed_seeds,
        equivalence_at_the_margin,
        optional_stopping,
        pooled_coverage,
        say_shares,
    )
    from ablations.reporting.statistics_check import coverage, false_alarms, say_what_holds

    draws, studies = arguments.draws, max(1, arguments.draws // 10)
    is_kept = say_what_holds(print, coverage(draws), false_alarms(draws))
    print(f"\nfurther shares, of {draws} studies each; of {studies} or {5 * studies} where every claim is judged or the best is sought")
    parts = [(part, draws) for part in (pooled_coverage, collapsed_seeds, equivalence_at_the_margin, optional_stopping)]
    parts += [(part, studies) for part in (best_of_equals, false_effects, true_effects)]
    parts.append((false_absence, 5 * studies))  # a greatest of several shares: fewer studies would not tell
    for part, count in parts:
        is_kept = say_shares(print, part(count)) and is_kept
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())

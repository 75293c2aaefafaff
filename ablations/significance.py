"""`python -m ablations.significance SCORES ... --reference ARM`: differences of anybody's scores, with intervals; may fail a CI job."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, number, run_command
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Reads a long table of scores, a row for each value: CSV, TSV, JSON lines or parquet, whatever its columns are called. Compares every arm
with the reference, paired by seed and unit (a prompt, a question, a picture), and prints for each metric the difference with its 95%
interval, Holm's corrected p, and the smallest difference that this N finds. The statistics are those of the report: seeds and units are
both drawn, so that an interval holds for new seeds and new units. Without a column of seeds it holds for new units alone.

  --fail-if worse            exit with 1 where an arm is worse than the reference (p < 0.05 after Holm's correction)
            different        ... differs from the reference
            not-better       ... is not shown to be better
            not-equivalent   ... is not shown to differ by less than the margin (two one-sided tests at 5%)
            maybe-worse      ... is not shown to be less than the margin worse (one one-sided test at 5%)

Columns that are not named are recognised by usual names: arm, method, model, ...; prompt, unit, ...; seed, run; metric; value, score;
candidate. Rows that are otherwise equal are averaged, unless a column tells them apart that nothing was said of.
"""
_EXAMPLES = """\
examples:
  python -m ablations.significance scores.csv --unit prompt --seed-column seed --reference A
  python -m ablations.significance scores.csv --reference main --fail-if worse             in CI: 0 passed, 1 worse, 2 could not be read
  python -m ablations.significance wide.csv --value-column fid --value-column clip --lower-is-better fid --reference main
  python -m ablations.significance report/tables/scores.parquet --where condition=refined --where metric=fidelity --reference ARM --pooled
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("significance", _DESCRIPTION, _EXAMPLES)
    made.add_argument("scores", metavar="SCORES", type=Path, nargs="+", help="the table; several files of equal columns are one table")
    made.add_argument("--reference", metavar="ARM", help="the arm that the others are compared with")
    made.add_argument("--arms", nargs="+", default=[], metavar="ARM", help="compare these alone (default: all that are there)")
    made.add_argument("--unit", metavar="COLUMN", help="the column of what is paired: prompts, say; rows of equal text are one unit")
    made.add_argument("--seed-column", metavar="COLUMN", help='the column of seeds; "none": there is none')
    made.add_argument("--arm-column", metavar="COLUMN", help="the column of arms")
    made.add_argument("--metric-column", metavar="COLUMN", help='the column of metrics; "none": there is none')
    made.add_argument(
        "--candidate-column", metavar="COLUMN", help='the column that numbers several values of one unit; "none": there is none'
    )
    made.add_argument("--value-column", action="append", default=[], metavar="COLUMN", help="the column of scores; several: a metric each")
    made.add_argument("--average-over", action="append", default=[], metavar="COLUMN", help="average rows that this column tells apart")
    made.add_argument("--where", action="append", default=[], metavar="COLUMN=VALUE", help="rows that have this value; again: or that one")
    made.add_argument(
        "--margin", type=_margin, action="append", default=[], metavar="[METRIC=]X", help="the smallest difference that matters"
    )
    made.add_argument("--lower-is-better", action="append", default=[], metavar="METRIC", help='of this metric; "all": of every one')
    made.add_argument("--higher-is-better", action="append", default=[], metavar="METRIC", help="of this one (default, unless it is known)")
    made.add_argument(
        "--pooled", action="store_true", help="the arms were made in one way: estimate their spread together, as the report does"
    )
    made.add_argument(
        "--correct-over-all", action="store_true", help="Holm's correction over all metrics together, not over each one's arms"
    )
    made.add_argument("--fail-if", action="append", default=[], metavar="WHAT", help="exit with 1 where a comparison is so; see above")
    made.add_argument("--to", action="append", default=[], type=Path, metavar="FILE", help="also write the comparisons, as .csv or .json")
    return made


def main(argv: list[str] | None = None) -> int:
    """Compare, print and write; returns the exit code."""
    return run_command(parser(), _compare, argv, then="begins anew")


def _compare(arguments: argparse.Namespace, stop: StopRequest) -> int:
    fail_if = tuple(word for words in arguments.fail_if for word in words.split(","))
    where = _where(arguments.where)
    margins = dict(arguments.margin)
    for path in arguments.to:
        if path.suffix not in (".csv", ".json"):
            raise UserError(f"--to {path}: give a file that ends in .csv or .json")
    # Heavy imports (pandas, SciPy) only now: --help and mistakes in the arguments come at once.
    from ablations.analysing.long_table import Asked
    from ablations.analysing.significance import FAILURES, Judging, findings_of, show, write

    for word in fail_if:
        if word not in FAILURES:
            raise UserError(f"--fail-if {word}: it knows {', '.join(FAILURES)}")
    a = arguments
    arms = tuple(dict.fromkeys([*a.arms, *([a.reference] if a.reference else [])])) if a.arms else ()
    columns = (a.unit, a.seed_column, a.arm_column, a.metric_column, a.candidate_column, tuple(a.value_column), tuple(a.average_over))
    judging = Judging(
        a.reference, margins, tuple(a.lower_is_better), tuple(a.higher_is_better), pooled=a.pooled, over_all=a.correct_over_all
    )
    findings = findings_of(a.scores, Asked(*columns, arms=arms, where=where), judging, fail_if)
    show(findings)
    for path in a.to:
        write(findings, path)
    return 1 if findings.failed else 0


def _where(texts: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        column, equals, value = text.partition("=")
        if not column or not equals:
            raise UserError(f"--where {text}: write COLUMN=VALUE")
        found.setdefault(column, []).append(value)
    return found


def _margin(text: str) -> tuple[str, float]:
    """An argparse type: METRIC=X, or X for all."""
    metric, _, written = text.rpartition("=")
    return metric or "all", number(above=0.0)(written)


if __name__ == "__main__":
    sys.exit(main())

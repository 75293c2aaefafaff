"""`python -m ablations.checks OUTPUT_DIR`: was each treatment delivered? The manipulation checks of every arm, beside its twins.

Claims about a part of the method are claims about nothing where the part did nothing: AFE whose weights collapse is no AFE. What was
measured after each training stands in its run.json; here it is put side by side, with the thresholds that were fixed beforehand.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.analysing.checks import study_checks
from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
The manipulation checks of every arm in OUTPUT_DIR: means and ranges over seeds, an arm's twins (uniform and frozen weights) and the arm
without AFE beside it, and in how many seeds AFE was delivered by the thresholds that were fixed beforehand. Arms that were only trained
(eval.num_prompts=0) count as any other.
"""
_EXAMPLES = """\
examples:
  python -m ablations.checks outputs                         the table
  python -m ablations.checks outputs --to checks.json        and the figures of every seed
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("checks", _DESCRIPTION, _EXAMPLES)
    made.add_argument("output_dir", metavar="OUTPUT_DIR", type=Path, help="where run folders lie")
    made.add_argument("--to", type=Path, metavar="FILE", help="write the figures of every arm and seed there, as JSON")
    return made


def main(argv: list[str] | None = None) -> int:
    """Read, print and write; returns the exit code."""
    return run_command(parser(), _study, argv, then="begins anew")


def _study(arguments: argparse.Namespace, stop: StopRequest) -> None:
    study_checks(arguments.output_dir, arguments.to)


if __name__ == "__main__":
    sys.exit(main())

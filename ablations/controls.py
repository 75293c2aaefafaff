"""`python -m ablations.controls OUTPUT_DIR/ARM`: does the refiner help, and because it was trained?"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.analysing.controls import show_controls
from ablations.runtime.command_line import OneLineParser, run_command

_DESCRIPTION = """\
Reads the scores of an arm's finished seeds and prints, for each metric, the refined prompts against the coarse ones and
against every control, as a paired difference with its 95% interval: paired by (seed, prompt), candidates averaged,
prompts with equal text taken as one unit.
"""
_EXAMPLES = """\
examples:
  python -m ablations.controls outputs/ARM
"""


def main(argv: list[str] | None = None) -> int:
    """Print the comparisons; returns the exit code."""
    parser = OneLineParser("controls", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("arm", metavar="OUTPUT_DIR/ARM", type=Path, help="the arm's folder")
    return run_command(parser, lambda arguments, stop: show_controls(arguments.arm), argv, then="begins anew")


if __name__ == "__main__":
    sys.exit(main())

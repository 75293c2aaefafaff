"""`python -m ablations.frontier RUN_DIR`: quality against diversity of one trained cell's texts, over top-p."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command, shares, whole_number
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Writes refined prompts at several top-p and shows, for each, the share of the added words that suit against the number of different fitting
styles among the candidates of a prompt, with 95% intervals over prompts; beside them the fine prompts' own words and a uniform guess. Texts
alone, no pictures. Leaves frontier.csv and frontier.png in RUN_DIR. The cell must have been trained in the tiny world.
"""
_EXAMPLES = """\
examples:
  python -m ablations.frontier outputs/ARM/seed-0
  python -m ablations.frontier outputs/ARM/seed-0 --prompts 512 --top-p 0.5,0.8,1.0
"""


def main(argv: list[str] | None = None) -> int:
    """Write, score and draw; returns the exit code."""
    parser = OneLineParser("frontier", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="a trained cell, OUTPUT_DIR/ARM/seed-N")
    parser.add_argument("--prompts", type=whole_number(2), default=256, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--candidates", type=whole_number(2), default=3, help="candidates of a prompt (default: %(default)s)")
    parser.add_argument(
        "--top-p", type=shares, default=(0.5, 0.6, 0.7, 0.8, 0.9, 1.0), metavar="P,P", help="(default: 0.5,0.6,0.7,0.8,0.9,1.0)"
    )
    return run_command(parser, _frontier, argv, then="begins anew")


def _frontier(arguments: argparse.Namespace, stop: StopRequest) -> None:
    from ablations.results.trained_run import find_trained_run
    from ablations.runtime.command_line import announce_libraries

    find_trained_run(arguments.run)
    announce_libraries()
    from ablations.analysing.frontier import frontier, frontier_table, leave_frontier

    points = frontier(arguments.run, arguments.top_p, arguments.prompts, arguments.candidates, lambda: stop.check("writing prompts"))
    print(frontier_table(points))
    for path in leave_frontier(points, arguments.run):
        print(path)


if __name__ == "__main__":
    sys.exit(main())

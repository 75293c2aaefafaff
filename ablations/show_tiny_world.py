"""`python -m ablations.show_tiny_world [FILE]`: a contact sheet of the tiny world (default: tiny_world.png), and what suits what in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Draws photographs of the subjects, the styles, what each quality word does to one poor picture, and each scene in the styles that suit it;
prints which styles suit which scene, which quality words suit which subject, and how often each is written.
"""


def main(argv: list[str] | None = None) -> int:
    """Draw the sheet; returns the exit code."""
    parser = OneLineParser("show_tiny_world", _DESCRIPTION)
    parser.add_argument("file", nargs="?", metavar="FILE", type=Path, default=Path("tiny_world.png"), help="the PNG (default: %(default)s)")
    parser.add_argument("--world", type=int, choices=(1, 2), default=2, help="as data.world (default: %(default)s)")
    return run_command(parser, _show, argv, then="begins anew")


def _show(arguments: argparse.Namespace, stop: StopRequest) -> None:
    from ablations.figures.tiny_world import fitting_words, tiny_world_sheet
    from ablations.runtime.files import whole_file
    from datamodules.tiny_world.worlds import world

    shown = world(arguments.world)
    print(fitting_words(shown), end="\n\n")
    with whole_file(arguments.file) as aside:
        tiny_world_sheet(aside, shown)
    print(arguments.file)


if __name__ == "__main__":
    sys.exit(main())

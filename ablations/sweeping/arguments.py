"""The command line of `sweep` and `plan`: a sweep file, `key=value` words for its cells, and options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ablations.runtime.command_line import OneLineParser, hint, started_as, whole_number
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from ablations.sweeping.cells import Grid, Search
    from ablations.sweeping.sweep_file import SweepFile


def sweep_parser(command: str, usage: str) -> OneLineParser:
    """What both commands take; a command adds its own options."""
    made = OneLineParser(command, usage=usage, takes_keys=True)
    made.set_defaults(command=command)
    made.add_argument("files", nargs="*", metavar="FILE")
    made.add_argument("--jobs", type=whole_number(1))
    made.add_argument("--count", type=whole_number(1))
    made.add_argument("--search-seed", type=whole_number(0), default=0)
    return made


def read_cells(arguments: argparse.Namespace) -> tuple[SweepFile, Grid | Search]:
    """The sweep that the arguments name, and its cells. Raises UserError for a mistake in the arguments or the file."""
    from ablations.sweeping.cells import cells_of
    from ablations.sweeping.sweep_file import read_sweep_file

    command, files = arguments.command, arguments.files
    if not files:
        raise UserError(f"name a sweep file, as in {started_as(command)} sweeps/losses.yaml {hint(command)}")
    if len(files) > 1:
        raise UserError(f"one sweep file at a time, got {files[0]!r} and {files[1]!r} {hint(command)}")
    sweep = read_sweep_file(files[0], arguments.keys)
    return sweep, cells_of(sweep, arguments.count, arguments.search_seed)

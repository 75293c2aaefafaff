"""`python -m ablations.run key=value ...`: runs one cell, from training to the table and the diversity grid.

Arguments are checked before anything heavy is imported, so that a mistake shows at once. Exit codes: 0 finished, 2 a
mistake of the user's, 143 stopped by a signal (it goes on next time), 1 anything else.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.cell.start import start_cell
from ablations.config import help_text, parse
from ablations.runtime.command_line import OneLineParser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run the cell that the arguments describe; returns the exit code."""
    return run_command(OneLineParser("run", usage=help_text, words=parse), start_cell, argv)


if __name__ == "__main__":
    sys.exit(main())

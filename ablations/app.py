"""`python -m ablations.app`: the local page, for refining prompts with pictures and for looking at runs."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import OneLineParser, run_command
from ablations.web.arguments import DEFAULT_RUNS, HOST, parse_arguments
from ablations.web.starting import start_page

_HELP = f"""\
usage: python -m ablations.app [run=RUN_DIR | from=DIR | from=OWNER/NAME] [runs=OUTPUT_DIR] [port=7860]

Serves a page on {HOST}, for browsers on this machine alone; nothing is sent or loaded from elsewhere. Stop it with Ctrl-C.

Refine   type a short prompt, see three ways on with pictures, click one to go on from it; back, redraw, other strategy, length and
         seed; before and after, with the original text encoder and with the trained one; the history as a JSON file
Runs     the diversity grids of an output folder's runs side by side at equal seeds, by prompt or by diversity

  run=RUN_DIR       the refiner that a run trained, OUTPUT_DIR/ARM/seed-SEED; without run= and from= the embedded tiny refiner
  from=DIR          the refiner that python -m ablations.export wrote to DIR, or OWNER/NAME[@REVISION] on a hub
  runs=OUTPUT_DIR   the runs to look at; default: the output folder of run=, else {DEFAULT_RUNS} if there is one
  port=7860         where to listen; 0 takes any free port

The page needs the optional packages of the extra `app`.

examples:
  uv run --extra app python -m ablations.app
  python -m ablations.app run=outputs/tiny-len6-mse-text-clip-afe-1a2b3c4d/seed-0 port=8000
  python -m ablations.app runs=outputs
"""


def main(argv: list[str] | None = None) -> int:
    """Serve the page until Ctrl-C; returns the exit code."""
    return run_command(OneLineParser("app", usage=_HELP, words=parse_arguments), start_page, argv, stoppable=False)


if __name__ == "__main__":
    sys.exit(main())

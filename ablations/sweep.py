"""`python -m ablations.sweep FILE [key=value ...]`: runs every cell of a W&B sweep file here, without an account.

Exit codes: 0 every cell finished, 1 a cell failed, 2 a mistake in the file or the arguments, 143 stopped by a signal.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.runtime.command_line import run_command
from ablations.sweeping.arguments import sweep_parser
from ablations.sweeping.running import run_sweep

HELP = """\
usage: python -m ablations.sweep FILE [key=value ...] [--jobs N] [--count N] [--search-seed N] [--verbose]
                               [--registration FILE]

Runs every cell of a W&B sweep file on this machine, without an account. The file is W&B's own format: `wandb sweep FILE` and
`wandb agent` run the same cells on many machines.

examples:
  python -m ablations.sweep sweeps/losses.yaml                       4 cells, one after the other
  python -m ablations.sweep sweeps/losses.yaml seed=0,1,2            with 3 seeds: 12 cells
  python -m ablations.sweep sweeps/ablation_tables.yaml --jobs 2     all arms of the paper, two cells at a time
  python -m ablations.sweep sweeps/prompt_length.yaml output_dir=/data/outputs train.max_steps=800
  python -m ablations.sweep sweeps/loss_weights.yaml --count 30      a search, of 30 cells
  python -m ablations.plan sweeps/losses.yaml                        what it would run, and how long that takes

  key=value      sets a key in every cell; key=1,2,3 sweeps over it, in place of what the file says (python -m ablations.run --help
                 lists the keys)
  --jobs N       processes, which share the processors' threads; each loads libraries and networks once, and has a GPU of its own where
                 there are some (default: as many as there are GPUs, or 1)
  --count N      cells of a random or bayes search, in place of run_cap in the file
  --search-seed  what the draws of a random or bayes search follow from (default 0)
  --verbose      shows what each cell says, too
  --registration FILE   what ablations.plan --register wrote: copied to OUTPUT_DIR/registration.json before the first cell, and refused
                 where the sweep's arms and seeds are not those that it plans, or a cell was begun before it was made

Start it again after a kill, a crash or a failure: it runs only what is missing. Start it in the same output_dir on several machines:
they never run a cell twice and finish it together (the file system must have file locks). Cells that differ in eval keys alone share a
training, and no picture is drawn or scored twice. A cell that failed is named with its reason and does not stop the others.

Exit codes: 0 every cell finished, 1 a cell failed, 2 a mistake in the file or the arguments, 143 stopped by a signal.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the sweep that the arguments describe; returns the exit code."""
    parser = sweep_parser("sweep", HELP)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--registration", type=Path, metavar="FILE")
    return run_command(parser, run_sweep, argv, then="runs what is missing")


if __name__ == "__main__":
    sys.exit(main())

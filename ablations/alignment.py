"""`python -m ablations.alignment RUN_DIR`: did training bring E_T(T_C) closer to what the frozen encoder makes of T_F?

The refiner's premise is that a trained E_T reads a coarse prompt as if it were the fine one. Measured here as the cosine between E_T's
features of the coarse prompt and the original, frozen encoder's features of its fine prompt, at step 0 (where E_T *is* the frozen encoder)
and after training, paired by prompt and seed:

    pooled    cos of the pooled joint-space features, as L_clip and feature matching read them
    states    mean over the fine prompt's positions, end token included, of the cos of the text states that the UNet reads; positions of
              tokens that both prompts begin with are left out: they are equal at step 0 by causality, and can only fall
    gap       share of the UNet's error gap that E_T closes, from the frozen encoder reading the coarse prompt (0) to its reading the fine
              one (1), on held-out pictures at fixed noise and stratified timesteps: what the UNet makes of the states

A control stands beside each: the same against the fine prompt of *another* coarse prompt. What rises there too is a drift towards fine
prompts in general and says nothing of this prompt's meaning; `own - other` is what is specific.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.analysing.alignment import study_alignment
from ablations.runtime.command_line import OneLineParser, run_command, whole_number
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_folder, is_there
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
How near E_T's features of the coarse prompts are to the frozen text encoder's features of the fine ones, as cosines, before training
(step 0) and after it, over evaluation prompts; and how much of what the fine prompt tells the UNet E_T tells it from the coarse one, as the
share of the error gap that it closes. A control compares with another prompt's fine prompt: what rises there too is no merit.

RUN_DIR is OUTPUT_DIR/ARM/seed-SEED; several seeds of one arm, or the arm's folder, are pooled. One run gives an interval over prompts
only, and says so; two give none; three or more give one that holds for new seeds and prompts.

Writes to DIR: alignment.json (means, differences, intervals, a row per prompt and seed) and alignment.png.
"""
_EXAMPLES = """\
examples:
  python -m ablations.alignment outputs/ARM/seed-0                        over the prompts that the run was evaluated on
  python -m ablations.alignment outputs/ARM --num-prompts 200 --to figures    every seed of the arm, over more held-out prompts
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("alignment", _DESCRIPTION, _EXAMPLES)
    made.add_argument("run_dirs", nargs="+", metavar="RUN_DIR", type=Path, help="trained runs of one arm, or the arm's folder")
    made.add_argument(
        "--num-prompts",
        type=whole_number(1),
        metavar="N",
        help="the first N held-out prompts (default: those that the run was evaluated on)",
    )
    made.add_argument("--to", type=Path, metavar="DIR", help="where the two files go (default: the first RUN_DIR)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Measure, print and write; returns the exit code."""
    return run_command(parser(), _study, argv, then="begins anew")


def _study(arguments: argparse.Namespace, stop: StopRequest) -> None:
    to = arguments.to or arguments.run_dirs[0]
    if is_there(to) and not is_folder(to):
        raise UserError(f"--to {to} is a file: give a folder")
    study_alignment(arguments.run_dirs, arguments.num_prompts, to)


if __name__ == "__main__":
    sys.exit(main())

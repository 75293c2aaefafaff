"""`python -m ablations.pretrain_tiny`: trains the tiny backbones from nothing and writes them where the suite loads them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.pretraining.stages import DEFAULT_STEPS, NUM_PICTURES, STAGES, pretrain
from ablations.runtime.command_line import OneLineParser, run_command, whole_number
from ablations.runtime.errors import UserError
from ablations.runtime.stopping import StopRequest

_DESCRIPTION = """\
Stages: vocabularies, vae, open_clip, t5, oracle, unet, evaluate, judge (the OpenCLIP that scores pictures, from another seed) and pairing
(what the networks know of which styles suit a scene). Each is seeded, goes on where it was stopped (its state is in
the work folder), and records its steps, loss, seconds and held-out quality in provenance.json beside the weights. A GPU is
used where there is one.
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("pretrain_tiny", _DESCRIPTION)
    made.add_argument("stages", nargs="*", metavar="STAGE", help=f"which stages, in this order (default: all): {', '.join(STAGES)}")
    made.add_argument("--work", type=Path, default=Path("outputs/pretraining"), help="folder for data and training state (about 4 GB)")
    made.add_argument("--to", type=Path, default=None, help="folder for weights and provenance.json (default: where the suite loads them)")
    made.add_argument(
        "--steps", action="append", type=_steps, default=[], metavar="STAGE=N", help=f"other lengths; defaults {DEFAULT_STEPS}"
    )
    made.add_argument("--pictures", type=whole_number(1), default=NUM_PICTURES, help="size of the corpus (default %(default)s)")
    made.add_argument(
        "--fine",
        choices=("neutral", "world-1"),
        default="neutral",
        help="how fine prompts of the corpus pair words: at random, or as in world 1, which the shipped weights read (default %(default)s)",
    )
    made.add_argument("--seed", type=whole_number(0), default=0)
    made.add_argument("--threads", type=whole_number(1), default=None, help="threads of torch (default: torch's choice)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the stages asked for; returns the exit code."""
    return run_command(parser(), _pretrain, argv)


def _steps(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in DEFAULT_STEPS or not number.isdecimal() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: write STAGE=N with a stage of {', '.join(DEFAULT_STEPS)} and N >= 1")
    return name, int(number)


def _pretrain(arguments: argparse.Namespace, stop: StopRequest) -> None:
    for stage in arguments.stages:
        if stage not in STAGES:
            raise UserError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    arguments.steps = DEFAULT_STEPS | dict(arguments.steps)
    arguments.stages = [stage for stage in STAGES if not arguments.stages or stage in arguments.stages]
    pretrain(arguments)


if __name__ == "__main__":
    sys.exit(main())

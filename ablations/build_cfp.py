"""`python -m ablations.build_cfp`: builds CFP, pairs of coarse and fine prompts with fine images, from a list of prompts."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # started by its path
    __import__("runtime.by_path")

from ablations.building_cfp.arguments import CLASSIFIER, STAGES, SUMMARIZER, shard
from ablations.building_cfp.building import build
from ablations.runtime.command_line import OneLineParser, number, run_command, whole_number
from lightning_modules.published import IMAGE_MODEL

_DESCRIPTION = f"""\
Builds CFP, the coarse-fine prompt data that a refiner is trained on, from a list of fine prompts. Stages, all of them if none
is named:

  images   a fine image for each prompt, with a recorded seed: a 63-bit key that follows from --seed and the prompt's id
  coarse   three coarse prompts of each, by a summariser: at most 5, 10 and 15 of its tokens
  nsfw     a label and its score of each, by a text classifier; no prompt is dropped for it
  table    cfp.csv, which data.source reads, and manifest.json with settings, models, counts and what was left out

Kill it anywhere and start it again: what is done stays, what is left is done. Every stage says before it starts what disk it
needs, and after its first batch how long it takes.

examples:
  python -m ablations.build_cfp --prompts prompts.txt --to cfp
  python -m ablations.build_cfp --prompts prompts.json --column text --limit 100 --to trial
  python -m ablations.build_cfp images --to cfp --shard 2/8      this machine's part of eight, counted from 0
  python -m ablations.build_cfp table --to cfp                   once every shard of the other stages is done
  python -m ablations.run profile=paper data.source=cfp/cfp.csv  train on it

Models are folders or hub ids, OWNER/NAME or OWNER/NAME@REVISION. The authors' data was made with those that are the defaults.
{IMAGE_MODEL} is a mirror: the publisher withdrew the original.
"""


def parser() -> OneLineParser:
    """The command line's arguments."""
    made = OneLineParser("build_cfp", _DESCRIPTION)
    made.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)} (default: all; with --shard: all but table)")
    made.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to build in, or to go on in")
    made.add_argument(
        "--prompts", type=Path, metavar="FILE", help="the first time: a text file, one prompt a line, or CSV, TSV, JSON, JSONL or parquet"
    )
    made.add_argument("--column", metavar="NAME", help="the column of the prompts (default: prompt or text, whichever there is)")
    made.add_argument("--limit", type=whole_number(1), metavar="N", help="only the first N prompts of the file")
    made.add_argument("--shard", type=shard, default=(0, 1), metavar="I/N", help="only the prompts whose id leaves I when divided by N")
    made.add_argument("--profile", choices=("paper", "tiny"), default="paper", help="tiny: images by the embedded tiny model, 64 px")
    models = made.add_argument_group("models")
    models.add_argument("--image-model", default=None, metavar="MODEL", help=f"a Stable Diffusion, as diffusers saves it ({IMAGE_MODEL})")
    models.add_argument("--summarizer", default=SUMMARIZER, metavar="MODEL", help="a sequence-to-sequence model (%(default)s)")
    models.add_argument("--classifier", default=CLASSIFIER, metavar="MODEL", help="a text classifier (%(default)s)")
    images = made.add_argument_group("images", "Euler ancestral, empty negative prompt, at the size that the model was trained for")
    images.add_argument("--seed", type=whole_number(0, 2**32 - 1), default=0, help="every image's noise follows from it (%(default)s)")
    images.add_argument("--steps", type=whole_number(1, 1000), default=None, help="sampling steps (50; tiny: 15)")
    images.add_argument("--guidance", type=number(least=0), default=7.5, metavar="SCALE", help="classifier-free guidance (%(default)s)")
    images.add_argument(
        "--precision", choices=("32-true", "16-mixed", "bf16-mixed"), help="default: 16-mixed on a CUDA device, 32-true elsewhere"
    )
    images.add_argument("--batch-size", type=whole_number(1), default=8, metavar="N", help="images drawn at a time (%(default)s)")
    machine = made.add_argument_group("machine")
    machine.add_argument("--text-batch-size", type=whole_number(1), default=32, metavar="N", help="texts read at a time (%(default)s)")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    machine.add_argument("--threads", type=whole_number(1), metavar="N", help="threads of torch (equal bytes need equal counts)")
    machine.add_argument("--progress", choices=("auto", "bar", "plain", "none"), default="auto", help="(%(default)s)")
    return made


def main(argv: list[str] | None = None) -> int:
    """Build what the arguments describe; returns the exit code."""
    return run_command(parser(), build, argv)


if __name__ == "__main__":
    sys.exit(main())

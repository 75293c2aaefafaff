"""`python -m ablations.build_cfp`: build CFP, pairs of coarse and fine prompts with fine images, from a list of prompts."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import NoReturn

from ablations.runtime.errors import RunFolderError, UserError, one_line
from lightning_modules.published import IMAGE_MODEL

STAGES = ("images", "coarse", "nsfw", "table")
SUMMARIZER = "sshleifer/distilbart-cnn-12-6"
CLASSIFIER = "michellejieli/NSFW_text_classifier"
DEFAULT_STEPS = {"paper": 50, "tiny": 15}

_HELP = f"""\
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


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {one_line(message)} (see --help)", file=sys.stderr)
        sys.exit(UserError.exit_code)


def _number(kind: type, least: float, most: float | None = None):
    """An argparse type: a number of this kind, within bounds."""

    def read(text: str):
        name = "whole number" if kind is int else "number"
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not value >= least or (most is not None and value > most) or value == float("inf"):
            bounds = f"from {least:g}" + (f" to {most:g}" if most is not None else "")
            raise argparse.ArgumentTypeError(f"{text!r} is no {name} {bounds}")
        return value

    return read


def _shard(text: str) -> tuple[int, int]:
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write I/N with I from 0 to N-1, as in 0/4")
    return int(index), int(count)


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line, checked; a mistake ends the process with exit code 2 and one line."""
    parser = _Parser(
        prog="python -m ablations.build_cfp", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)} (default: all; with --shard: all but table)")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to build in, or to go on in")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="the first time: a text file, one prompt a line, or CSV, JSON, JSONL or parquet"
    )
    parser.add_argument("--column", metavar="NAME", help="the column of the prompts (default: prompt or text, whichever there is)")
    parser.add_argument("--limit", type=_number(int, 1), metavar="N", help="only the first N prompts of the file")
    parser.add_argument("--shard", type=_shard, default=(0, 1), metavar="I/N", help="only the prompts whose id leaves I when divided by N")
    parser.add_argument("--profile", choices=("paper", "tiny"), default="paper", help="tiny: images by the embedded tiny model, 64 px")
    models = parser.add_argument_group("models")
    models.add_argument("--image-model", default=None, metavar="MODEL", help=f"a Stable Diffusion, as diffusers saves it ({IMAGE_MODEL})")
    models.add_argument("--summarizer", default=SUMMARIZER, metavar="MODEL", help="a sequence-to-sequence model (%(default)s)")
    models.add_argument("--classifier", default=CLASSIFIER, metavar="MODEL", help="a text classifier (%(default)s)")
    images = parser.add_argument_group("images", "Euler ancestral, empty negative prompt, at the size that the model was trained for")
    images.add_argument("--seed", type=_number(int, 0, 2**32 - 1), default=0, help="every image's noise follows from it (%(default)s)")
    images.add_argument("--steps", type=_number(int, 1, 1000), default=None, help="sampling steps (50; tiny: 15)")
    images.add_argument("--guidance", type=_number(float, 0), default=7.5, metavar="SCALE", help="classifier-free guidance (%(default)s)")
    images.add_argument(
        "--precision", choices=("32-true", "16-mixed", "bf16-mixed"), help="default: 16-mixed on a CUDA device, 32-true elsewhere"
    )
    images.add_argument("--batch-size", type=_number(int, 1), default=8, metavar="N", help="images drawn at a time (%(default)s)")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--text-batch-size", type=_number(int, 1), default=32, metavar="N", help="texts read at a time (%(default)s)")
    machine.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")
    machine.add_argument("--threads", type=_number(int, 1), metavar="N", help="threads of torch (equal bytes need equal counts)")
    machine.add_argument("--progress", choices=("auto", "bar", "plain", "none"), default="auto", help="(%(default)s)")
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """What can be wrong with the arguments together."""
    for stage in arguments.stages:
        if stage not in STAGES:
            parser.error(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    sharded = arguments.shard[1] > 1
    if sharded and "table" in arguments.stages:
        parser.error("table reads every shard: run it by itself, without --shard")
    chosen = arguments.stages or [stage for stage in STAGES if not (sharded and stage == "table")]
    arguments.stages = [stage for stage in STAGES if stage in chosen]
    if arguments.prompts is None and (arguments.column is not None or arguments.limit is not None):
        parser.error("--column and --limit say how --prompts is read: give it too")
    if arguments.to.exists() and not arguments.to.is_dir():
        parser.error(f"--to {arguments.to} is a file, not a folder")
    if arguments.profile == "tiny" and arguments.image_model is not None:
        parser.error(f"--image-model {arguments.image_model} has no effect with --profile tiny: leave one of them out")
    arguments.image_model = arguments.image_model or IMAGE_MODEL
    from ablations.building_cfp.sources import require_source

    models = {"images": ("--image-model", arguments.image_model), "coarse": ("--summarizer", arguments.summarizer)}
    models["nsfw"] = ("--classifier", arguments.classifier)
    for stage in arguments.stages:
        option, name = models.get(stage, ("", ""))
        try:
            require_source(name, option)
        except UserError as error:
            parser.error(str(error))
    arguments.steps = arguments.steps or DEFAULT_STEPS[arguments.profile]


def _build(arguments: argparse.Namespace) -> None:
    from ablations.building_cfp.folder import BuildFolder
    from ablations.building_cfp.ledger import Shard
    from ablations.runtime.console import Console

    folder, shard, console = BuildFolder(arguments.to), Shard(*arguments.shard), Console(arguments.progress)
    folder.take_prompts(arguments.prompts, arguments.column, arguments.limit)
    prompts, bad = folder.read_prompts()
    console.say(f"{folder.path}: {len(prompts)} prompts" + (f", {len(bad)} bad ones left out (manifest.json lists them)" if bad else ""))
    heavy = [name for name in arguments.stages if name != "table"]
    if heavy:
        console.say("loading libraries (some seconds)")
        from ablations.runtime.quiet_libraries import quiet_libraries

        quiet_libraries()
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        device = _device(arguments.device, arguments.threads)
        from ablations.building_cfp.stages import run_stage

        for name in heavy:
            run_stage(_stage(name, folder, arguments, device), shard, console)
    if "table" in arguments.stages:
        from ablations.building_cfp.table import write_table

        rows = write_table(folder)
        console.say(f"{folder.table}: {rows} rows; train on them with data.source={folder.table}")


def _stage(name: str, folder, arguments: argparse.Namespace, device):
    from ablations.building_cfp.drawing import DrawingSettings, ImagesStage
    from ablations.building_cfp.texts import CoarseStage, NsfwStage

    if name == "images":
        settings = DrawingSettings(
            profile=arguments.profile,
            image_model=arguments.image_model,
            seed=arguments.seed,
            steps=arguments.steps,
            guidance_scale=arguments.guidance,
            precision=arguments.precision,
            batch_size=arguments.batch_size,
            device=device,
        )
        return ImagesStage(folder, settings)
    if name == "coarse":
        return CoarseStage(folder, arguments.summarizer, arguments.text_batch_size, device)
    return NsfwStage(folder, arguments.classifier, arguments.text_batch_size, device)


def _device(name: str, threads: int | None):
    """The torch device of a name, with torch's threads set; raises UserError for one that is not here."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name}: torch has no such device here ({one_line(error)[:120]})") from error


def main(argv: list[str] | None = None) -> int:
    """Build what the arguments describe; returns the exit code."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    from ablations.runtime.stopping import Preempted, StopRequest

    stop = StopRequest().install()
    try:
        _build(arguments)
    except (UserError, RunFolderError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    except Preempted as preempted:
        print("stopped by a signal; the same command goes on from there", file=sys.stderr)
        return preempted.exit_code
    finally:
        stop.restore()
    return 0


if __name__ == "__main__":
    sys.exit(main())

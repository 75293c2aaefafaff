"""The arguments of `build_cfp`: what they may be, and what follows from them. Imports no heavy library."""

from __future__ import annotations

import argparse

from ablations.building_cfp.sources import require_source
from ablations.runtime.errors import UserError
from ablations.runtime.foreign import is_folder, is_there
from lightning_modules.published import IMAGE_MODEL

STAGES = ("images", "coarse", "nsfw", "table")
SUMMARIZER = "sshleifer/distilbart-cnn-12-6"
CLASSIFIER = "michellejieli/NSFW_text_classifier"
DEFAULT_STEPS = {"paper": 50, "tiny": 15}


def shard(text: str) -> tuple[int, int]:
    """An argparse type: this machine's part of several, I/N with I from 0."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: write I/N with I from 0 to N-1, as in 0/4")
    return int(index), int(count)


def complete(arguments: argparse.Namespace) -> None:
    """Fills in what follows from other arguments. Raises UserError for what can be wrong with them together."""
    for stage in arguments.stages:
        if stage not in STAGES:
            raise UserError(f"unknown stage {stage!r}; known: {', '.join(STAGES)}")
    sharded = arguments.shard[1] > 1
    if sharded and "table" in arguments.stages:
        raise UserError("table reads every shard: run it by itself, without --shard")
    chosen = arguments.stages or [stage for stage in STAGES if not (sharded and stage == "table")]
    arguments.stages = [stage for stage in STAGES if stage in chosen]
    if arguments.prompts is None and (arguments.column is not None or arguments.limit is not None):
        raise UserError("--column and --limit say how --prompts is read: give it too")
    if is_there(arguments.to) and not is_folder(arguments.to):
        raise UserError(f"--to {arguments.to} is a file, not a folder")
    if arguments.profile == "tiny" and arguments.image_model is not None:
        raise UserError(f"--image-model {arguments.image_model} has no effect with --profile tiny: leave one of them out")
    arguments.image_model = arguments.image_model or IMAGE_MODEL
    models = {"images": ("--image-model", arguments.image_model), "coarse": ("--summarizer", arguments.summarizer)}
    models["nsfw"] = ("--classifier", arguments.classifier)
    for stage in arguments.stages:
        option, name = models.get(stage, ("", ""))
        require_source(name, option)
    arguments.steps = arguments.steps or DEFAULT_STEPS[arguments.profile]

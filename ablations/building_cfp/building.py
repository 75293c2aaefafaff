"""Building CFP: the stages that were asked for, one after the other."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING

from ablations.building_cfp.arguments import complete
from ablations.runtime.command_line import announce_libraries
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.stopping import StopRequest

if TYPE_CHECKING:
    import torch

    from ablations.building_cfp.folder import BuildFolder


def build(arguments: argparse.Namespace, stop: StopRequest) -> None:
    """Run the stages that the arguments name.

    Raises UserError for a mistake in them or a model that cannot be had, RunFolderError where the folder cannot be written, and Preempted
    at a signal.
    """
    complete(arguments)
    from ablations.building_cfp.folder import BuildFolder
    from ablations.building_cfp.ledger import Shard
    from ablations.runtime.console import Console

    folder, shard, console = BuildFolder(arguments.to), Shard(*arguments.shard), Console(arguments.progress)
    folder.take_prompts(arguments.prompts, arguments.column, arguments.limit)
    prompts, bad = folder.read_prompts()
    console.say(f"{folder.path}: {len(prompts)} prompts" + (f", {len(bad)} bad ones left out (manifest.json lists them)" if bad else ""))
    heavy = [name for name in arguments.stages if name != "table"]
    if heavy:
        announce_libraries(console.say)
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        device = _device(arguments.device, arguments.threads)
        from ablations.building_cfp.stages import run_stage

        for name in heavy:
            run_stage(_stage(name, folder, arguments, device), shard, console)
    if "table" in arguments.stages:
        from ablations.building_cfp.table import write_table

        rows = write_table(folder)
        console.say(f"{folder.table}: {rows} rows; train on them with data.source={folder.table}")


def _stage(name: str, folder: BuildFolder, arguments: argparse.Namespace, device: torch.device):
    """The stage of a name, with what the arguments say about it."""
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


def _device(name: str, threads: int | None) -> torch.device:
    """The torch device of a name, with torch's threads set; raises UserError for one that is not here."""
    import torch

    from ablations.cell.loading.device import best_device

    if threads is not None:
        torch.set_num_threads(threads)
    if name == "auto":
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: torch has no such device here ({one_line(error)[:120]})") from error

"""The first stage: networks, the refiner at step 0, and data that is ready to train on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ablations.cell.loading import rehearsal
from ablations.cell.loading.data import build_data
from ablations.cell.loading.device import device_of, ready
from ablations.cell.loading.kept import Kept
from ablations.cell.loading.module import build_module
from ablations.cell.work import Work
from ablations.config.names import is_rehearsal
from ablations.runtime.errors import UserError
from datamodules.cfp import CFPDataModule
from datamodules.records import EvalPrompt
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule


@dataclass(frozen=True)
class Loaded:
    """What a cell works with: frozen networks, the refiner that is trained, its data, and the evaluation prompts (none: train only).

    The first `eval.num_prompts` prompts get pictures, those after them are refined alone.
    `at_step_0()` makes the refiner anew as it was before its first step, on the networks' device.
    """

    backbones: Backbones
    module: PromptRefinerModule
    data: CFPDataModule
    prompts: list[EvalPrompt]
    at_step_0: Callable[[], PromptRefinerModule]


def load(work: Work, kept: Kept) -> Loaded:
    """Load and read what the cell needs, on its device; run.json gets the digests of weights and data.

    Evaluation prompts are among it, so that a mistake there costs no training. Raises UserError for networks and data that cannot be used.
    """
    config, device = work.config, ready(device_of(work.config))
    with work.timings.stage("backbones"):
        backbones = _backbones(work, kept)
        module = build_module(config, backbones)
        work.record(digests={"weights": backbones.digest})  # read while the networks are here
        backbones.to(device)
        if backbones.commits:
            work.record(commits=backbones.commits)
        if is_rehearsal(config):
            rehearsal.announce(work, module)
    work.stop.check("loading the backbones")
    with work.timings.stage("data"):
        data, prompts = _data(work, kept, module)
        work.record(digests={"data": data.digest, "weights": backbones.digest})
    return Loaded(backbones, module, data, prompts, at_step_0=lambda: build_module(config, backbones).to(device).eval())


def _backbones(work: Work, kept: Kept) -> Backbones:
    try:
        backbones = kept.backbones(work.config)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    asked, size = work.config.data.image_size, backbones.text_to_image.image_size
    if asked != size:
        raise UserError(f"data.image_size={asked}, but the UNet was trained for {size} px: set data.image_size={size}")
    return backbones


def _data(work: Work, kept: Kept, module: PromptRefinerModule) -> tuple[CFPDataModule, list[EvalPrompt]]:
    config, count = work.config, work.config.eval.num_prompts
    try:
        data = build_data(config, module, work.console.say, None if work.is_beside else work.folder)
        kept.read_records(config, data)
        data.setup("fit")
        epoch = data.batches_per_epoch
        prompts = data.eval_prompts("test", count, config.eval.coarse_length) if count else []
        if prompts and config.eval.text_prompts > count:
            prompts = data.eval_prompts("test", min(config.eval.text_prompts, data.num_eval_prompts("test")), config.eval.coarse_length)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    work.console.say(f"data: {epoch} batches an epoch, {len(prompts)} evaluation prompts")
    return data, prompts

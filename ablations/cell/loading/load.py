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
    backbones, module = load_networks(work, kept)
    work.stop.check("loading the backbones")
    with work.timings.stage("data"):
        data = read_data(work, kept, module)
        prompts = get_ready(work, data)
        work.record(digests={"data": data.digest, "weights": backbones.digest})
    return loaded_of(work, backbones, module, data, prompts)


def loaded_of(work: Work, backbones: Backbones, module: PromptRefinerModule, data: CFPDataModule, prompts: list[EvalPrompt]) -> Loaded:
    """What was loaded part by part."""
    device = device_of(work.config)
    return Loaded(backbones, module, data, prompts, at_step_0=lambda: build_module(work.config, backbones).to(device).eval())


def load_networks(work: Work, kept: Kept) -> tuple[Backbones, PromptRefinerModule]:
    """The frozen networks on their device, and the refiner at step 0. Raises as `load` does."""
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
    return backbones, module


def read_data(work: Work, kept: Kept, module: PromptRefinerModule) -> CFPDataModule:
    """The data module with its records read and checked, and no picture encoded. Raises as `load` does."""
    try:
        data = build_data(work.config, module, work.console.say, None if work.is_beside else work.folder)
        kept.read_records(work.config, data)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    if work.crew.world_size > 1:
        count = work.crew.world_size
        data.together = lambda lacking, own: work.crew.do("encoding", lambda: own(count), lacking=lacking)
    return data


def get_ready(work: Work, data: CFPDataModule) -> list[EvalPrompt]:
    """Make the data ready to train on; the evaluation prompts. Raises as `load` does."""
    config, count = work.config, work.config.eval.num_prompts
    try:
        data.setup("fit")
        epoch = data.batches_per_epoch
        prompts = data.eval_prompts("test", count, config.eval.coarse_length) if count else []
        if prompts and config.eval.text_prompts > count:
            prompts = data.eval_prompts("test", min(config.eval.text_prompts, data.num_eval_prompts("test")), config.eval.coarse_length)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    work.console.say(f"data: {epoch} batches an epoch, {len(prompts)} evaluation prompts")
    return prompts


def _backbones(work: Work, kept: Kept) -> Backbones:
    try:
        backbones = kept.backbones(work.config)
    except (ValueError, FileNotFoundError) as error:
        raise UserError(str(error)) from error
    asked, size = work.config.data.image_size, backbones.text_to_image.image_size
    if asked != size:
        raise UserError(f"data.image_size={asked}, but the UNet was trained for {size} px: set data.image_size={size}")
    return backbones

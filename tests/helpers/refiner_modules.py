"""What the tests of the refiner's training share: modules with every term on, or one of them off, on given backbones."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import LossSettings, OptimizerSettings

ALL_ON = LossSettings(use_feature=True)

WITHOUT = {
    "l_mse": replace(ALL_ON, use_mse=False),
    "l_text": replace(ALL_ON, use_text=False),
    "l_clip": replace(ALL_ON, use_clip=False, use_afe=False),
    "l_feature": replace(ALL_ON, use_feature=False),
}


def make_module(backbones: Backbones, losses: LossSettings = ALL_ON, seed: int = 0, **optimizer) -> PromptRefinerModule:
    return PromptRefinerModule(backbones, losses, OptimizerSettings(**{"warmup_steps": 1, "learning_rate": 1e-3, **optimizer}), seed)


def frozen_networks(backbones: Backbones) -> dict[str, nn.Module]:
    model = backbones.text_to_image
    return {
        "open_clip": backbones.clip_model,
        "frozen_text_encoder": backbones.text_encoder,
        "vae": model.vae,
        "unet": model.unet,
        "t5": backbones.decoder.t5,
    }

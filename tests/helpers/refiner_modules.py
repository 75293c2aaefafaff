"""What the tests of the refiner's training share: modules with every term on, or one of them off, on given backbones."""

from __future__ import annotations

from torch import nn

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import LossSettings, OptimizerSettings
from lightning_modules.terms import term_weights


def with_terms(use_afe: bool | None = None, **switched: bool | float) -> LossSettings:
    """The default terms but for those switched off (False), on (True) or given a weight; AFE as L_clip, unless it is said otherwise."""
    weights = term_weights(**switched)
    return LossSettings(weights, use_afe="clip" in weights if use_afe is None else use_afe)


ALL_ON = with_terms(feature=True)

WITHOUT = {
    "l_mse": with_terms(feature=True, mse=False),
    "l_text": with_terms(feature=True, text=False),
    "l_clip": with_terms(feature=True, clip=False),
    "l_feature": with_terms(),
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

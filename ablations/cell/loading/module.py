"""The networks that an arm's config asks for, at step 0. A file of its own, so that refining need not load what runs need."""

from __future__ import annotations

from ablations.config import Config
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import AdapterSettings, LossSettings, OptimizerSettings


def build_module(config: Config, backbones: Backbones) -> PromptRefinerModule:
    """The refiner of an arm at step 0: the same for the same seed."""
    losses = LossSettings(
        use_mse=config.use_mse,
        use_text=config.use_text,
        use_clip=config.use_clip,
        use_afe=bool(config.use_afe),
        use_feature=config.use_feature,
        mse_weight=config.loss.mse_weight,
        text_weight=config.loss.text_weight,
        clip_weight=config.loss.clip_weight,
        feature_weight=config.loss.feature_weight,
        clip_scale=config.loss.clip_scale,
        afe_hidden=config.afe.hidden,
        afe_temperature=config.afe.temperature,
        afe_grid=config.afe.grid,
    )
    optimizer = OptimizerSettings(
        learning_rate=config.train.learning_rate,
        new_parts_lr_scale=config.train.new_parts_lr_scale,
        betas=(config.train.beta1, config.train.beta2),
        weight_decay=config.train.weight_decay,
        eps=config.train.adam_eps,
        warmup_steps=config.train.warmup_steps,
        decay_share=config.train.decay_share,
    )
    adapter = AdapterSettings(config.adapter.output_relu, config.adapter.match_scale, config.adapter.mask_padding)
    return PromptRefinerModule(backbones, losses, optimizer, config.seed, adapter)

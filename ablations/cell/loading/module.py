"""The networks that an arm's config asks for, at step 0. A file of its own, so that refining need not load what runs need."""

from __future__ import annotations

from ablations.config import Config, to_flat_dict
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.prompt_refiner import PromptRefinerModule
from lightning_modules.settings import AdapterSettings, AFESettings, LossSettings, OptimizerSettings
from lightning_modules.terms import terms_on


def build_module(config: Config, backbones: Backbones) -> PromptRefinerModule:
    """The refiner of an arm at step 0: the same for the same seed. It is on the CPU, wherever the backbones are."""
    terms = terms_on(to_flat_dict(config))
    losses = LossSettings(
        weights={term.name: getattr(config.loss, f"{term.name}_weight") for term in terms},
        use_afe=bool(config.use_afe),
        afe=AFESettings(**vars(config.afe)),
        clip_scale=config.loss.clip_scale,
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

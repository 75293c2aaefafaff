"""Which backbones a config asks for."""

from __future__ import annotations

from ablations.config import Config
from lightning_modules.backbones.loading import BackboneChoice
from lightning_modules.backbones.sources import PaperSources


def backbone_choice(config: Config) -> BackboneChoice:
    """What decides about the config's networks: configs of equal choice share them."""
    b = config.backbones
    sources = PaperSources.named(b.image_model, b.open_clip, b.t5)
    return BackboneChoice(config.profile, b.dir, b.init, sources=sources, frozen_dtype=b.frozen_dtype, vae_dtype=b.vae_dtype)

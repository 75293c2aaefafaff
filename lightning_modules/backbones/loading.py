"""The backbones that a config asks for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.tiny import TINY, load_tiny_backbones, random_tiny_backbones
from lightning_modules.frozen_precision import precision_named

if TYPE_CHECKING:
    from lightning_modules.backbones.sources import PaperSources


def load_backbones(
    profile: str,
    directory: str | None,
    init: str,
    seed: int = 0,
    sources: PaperSources | None = None,
    frozen_dtype: str = "float32",
) -> Backbones:
    """The backbones of a profile ("tiny" or "paper"), pretrained or random.

    `directory` replaces the profile's own source of weights; `seed` makes random ones; `sources` names the paper profile's networks;
    `frozen_dtype` is the precision of UNet, VAE, image tower and T5 (T5 stays in float32 at float16). Raises FileNotFoundError for
    weights that are not there, and ValueError for what there is not or does not fit, one line each.
    """
    if profile not in ("tiny", "paper") or init not in ("pretrained", "random"):
        raise ValueError(f"profile={profile} with backbones.init={init} is unknown: take tiny or paper, and pretrained or random")
    if init == "random" and directory is not None:
        raise ValueError(f"backbones.dir={directory} has no effect with backbones.init=random: set one of them")
    frozen = precision_named(frozen_dtype)
    if profile == "paper":
        # Not at the top: these modules build Backbones.
        from lightning_modules.backbones.paper import load_paper_backbones
        from lightning_modules.backbones.random_paper import random_paper_backbones
        from lightning_modules.backbones.sources import PaperSources

        if init == "random":
            return random_paper_backbones(sources or PaperSources(), seed, frozen)
        return load_paper_backbones(Path(directory) if directory is not None else None, sources or PaperSources(), frozen)
    tiny = random_tiny_backbones(seed) if init == "random" else load_tiny_backbones(Path(directory) if directory is not None else TINY)
    tiny.cast_frozen(frozen)
    return tiny

"""Which backbones there are to choose from, and the one function that loads or builds any of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.paper import load_paper_backbones
from lightning_modules.backbones.random_paper import random_paper_backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.tiny import TINY, load_tiny_backbones, random_tiny_backbones
from lightning_modules.frozen_precision import FrozenPrecision


@dataclass(frozen=True)
class BackboneChoice:
    """Everything that decides about a set of backbones: equal choices are equal networks.

    `profile` is "tiny" or "paper", `init` "pretrained" or "random". `directory` replaces the profile's own source of weights; `seed` makes
    random ones; `sources` names the paper profile's networks; `frozen_dtype` is the precision of UNet, image tower and T5 (T5 stays in
    float32 at float16), and of the VAE unless `vae_dtype` is another.
    """

    profile: str = "tiny"
    directory: str | None = None
    init: str = "pretrained"
    seed: int = 0
    sources: PaperSources = field(default_factory=PaperSources)
    frozen_dtype: str = "float32"
    vae_dtype: str | None = None


def load_backbones(choice: BackboneChoice) -> Backbones:
    """The backbones of a choice. Raises FileNotFoundError for weights that are not there, and ValueError for what there is not or does not
    fit, one line each."""
    profile, init, directory = choice.profile, choice.init, choice.directory
    if profile not in ("tiny", "paper") or init not in ("pretrained", "random"):
        raise ValueError(f"profile={profile} with backbones.init={init} is unknown: take tiny or paper, and pretrained or random")
    if init == "random" and directory is not None:
        raise ValueError(f"backbones.dir={directory} has no effect with backbones.init=random: set one of them")
    precision = FrozenPrecision.named(choice.frozen_dtype, choice.vae_dtype)
    folder = Path(directory) if directory is not None else None
    if profile == "paper":
        if init == "random":
            return random_paper_backbones(choice.sources, choice.seed, precision)
        return load_paper_backbones(folder, choice.sources, precision)
    tiny = random_tiny_backbones(choice.seed) if init == "random" else load_tiny_backbones(folder or TINY)
    tiny.cast_frozen(precision)
    return tiny

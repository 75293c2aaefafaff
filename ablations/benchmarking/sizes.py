"""The networks that are timed: the tiny ones, narrow ones of the paper's shape, and the paper's at full size, all without downloads.

The middle size has half of the paper's channels and half of its side: a sixteenth of its operations in the same proportions, so that a CPU
can time it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import open_clip
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.model import CLIP
from transformers import T5Config, T5ForConditionalGeneration

from lightning_modules.backbones.assembling import T5, ImageNetworks, OpenClip, assemble
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.random_paper import ARCHITECTURES, random_paper_backbones, rehearsal_tokenizer
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.tiny import load_tiny_backbones
from lightning_modules.frozen_precision import FrozenPrecision

# Target tokens of the longest of 16 fine prompts, on average over 81,910 prompts of users; the authors pad to 256.
TARGET_TOKENS, AUTHORS_TARGET_TOKENS = 138, 256


@dataclass(frozen=True)
class Size:
    """`build(precision)` makes the networks. `batch_size` records a micro-batch, `drawn` pictures drawn at a time in `steps` steps."""

    name: str
    build: Callable[[FrozenPrecision], Backbones]
    batch_size: int
    target_tokens: int
    authors_target_tokens: int
    drawn: int
    steps: int


def _tiny(precision: FrozenPrecision) -> Backbones:
    backbones = load_tiny_backbones()
    backbones.cast_frozen(precision)
    return backbones


def _middle(precision: FrozenPrecision) -> Backbones:
    shapes = json.loads((ARCHITECTURES / "stable-diffusion-2-1-base.json").read_text())
    t5_shape = json.loads((ARCHITECTURES / "t5-base.json").read_text())["t5"]
    unet_shape, vae_shape = shapes["unet"], shapes["vae"]
    halved = lambda values: [value // 2 for value in values]  # noqa: E731
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            **unet_shape
            | {
                "block_out_channels": halved(unet_shape["block_out_channels"]),
                "attention_head_dim": [5, 5, 10, 10],
                "cross_attention_dim": 512,
                "sample_size": 32,
            }
        )
        vae = AutoencoderKL(**vae_shape | {"block_out_channels": halved(vae_shape["block_out_channels"]), "sample_size": 256})
        clip = CLIP(
            embed_dim=512,
            vision_cfg={"image_size": 224, "layers": 16, "width": 640, "head_width": 80, "patch_size": 14},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 24},
        )
        t5 = T5ForConditionalGeneration(
            T5Config(**t5_shape | {"d_model": 384, "d_ff": 1536, "num_heads": 6, "num_layers": 12, "num_decoder_layers": 12})
        )
    clip.visual.image_mean, clip.visual.image_std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    image = ImageNetworks(vae, unet, DDPMScheduler.from_config(shapes["scheduler"]), None, None)
    backbones = assemble(
        "middle", image, OpenClip(clip, open_clip.get_tokenizer("ViT-H-14")), T5(t5, rehearsal_tokenizer()), "the middle size"
    )
    backbones.cast_frozen(precision)
    return backbones


def _full(precision: FrozenPrecision) -> Backbones:
    return random_paper_backbones(PaperSources(), 0, precision)


SIZES = {
    "tiny": Size("tiny", _tiny, 8, 24, AUTHORS_TARGET_TOKENS, 32, 15),
    "middle": Size("middle", _middle, 4, TARGET_TOKENS, AUTHORS_TARGET_TOKENS, 2, 4),
    "full": Size("full", _full, 16, TARGET_TOKENS, AUTHORS_TARGET_TOKENS, 8, 50),
}

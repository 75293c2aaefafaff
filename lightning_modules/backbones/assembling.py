"""Backbones put together from an image model, OpenCLIP and T5, once these are found to belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_to_image import TextToImage

# Stable Diffusion's name of the mark that OpenCLIP's tokenizer calls <end_of_text>.
_END_MARK = "<|endoftext|>"


class EndPaddedTokenizer(SimpleTokenizer):
    """OpenCLIP's tokenizer with the padding of Stable Diffusion 1: the end mark again, instead of id 0."""

    @property
    def pad_token_id(self) -> int:
        return self.eot_token_id

    def __call__(self, texts: str | list[str], context_length: int | None = None) -> Tensor:
        ids_BS = super().__call__(texts, context_length)
        after_end = torch.arange(ids_BS.shape[1]) > ids_BS.argmax(dim=-1, keepdim=True)
        return ids_BS.masked_fill(after_end, self.eot_token_id)


@dataclass(frozen=True)
class ImageNetworks:
    """An image model without its text encoder: networks, noise schedule, and how the text states that its UNet reads are made.

    `text_config` is the config of its own text encoder: it says after how many blocks the text states are read. `pad_token` is what its
    tokenizer pads with. Both may be None: nothing says so.
    """

    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler: DDPMScheduler
    text_config: dict | None
    pad_token: str | None


@dataclass(frozen=True)
class OpenClip:
    """Both towers of an OpenCLIP model, and its tokenizer: texts to ids, int64 (B, 77)."""

    model: nn.Module
    tokenize: Callable[[list[str]], Tensor]


@dataclass(frozen=True)
class T5:
    """T5 and its tokenizer."""

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase


def assemble(
    name: str, image: ImageNetworks, open_clip: OpenClip, t5: T5, described: str, commits: dict[str, str] | None = None
) -> Backbones:
    """Networks and tokenizers as Backbones, once they are found to belong together.

    `described` is what the user chose, as errors begin. Raises ValueError, one line, for networks that do not fit.
    """
    blocks = conditioning_blocks(open_clip.model, image.unet, image.text_config, described)
    latents, reads = image.vae.config.latent_channels, image.unet.config.in_channels
    if latents != reads:
        raise ValueError(f"{described}: the VAE has {latents} latent channels, the UNet reads {reads}")
    if len(t5.tokenizer) > t5.model.config.vocab_size:
        raise ValueError(f"T5's tokenizer has {len(t5.tokenizer)} pieces, but the network only {t5.model.config.vocab_size}")
    tokenize, pad_token = open_clip.tokenize, image.pad_token
    if pad_token not in (None, "!") or (pad_token is None and blocks is not None):
        tokenize = _end_padded(tokenize, pad_token, described)
    return Backbones(
        name=name,
        clip_model=open_clip.model.eval().requires_grad_(False),
        tokenize=tokenize,
        image_mean=tuple(open_clip.model.visual.image_mean),
        image_std=tuple(open_clip.model.visual.image_std),
        text_to_image=TextToImage(image.vae, image.unet, image.scheduler),
        decoder=PromptDecoder(t5.model, t5.tokenizer),
        conditioning_blocks=blocks,
        commits=commits or {},
    )


def conditioning_blocks(clip_model: nn.Module, unet: nn.Module, text_config: dict | None, described: str) -> int | None:
    """After how many blocks of the text tower the UNet's text states are read; None for all but the last, as in Stable Diffusion 2.

    Raises ValueError, one line that begins with `described`, where the UNet was not trained with this text tower.
    """
    tower = getattr(clip_model, "text", clip_model)
    depth, width = len(tower.transformer.resblocks), tower.ln_final.weight.shape[0]
    reads, apart = unet.config.cross_attention_dim, f"{described}: these do not belong together"
    if reads != width:
        raise ValueError(f"{apart}: the UNet reads text states of width {reads}, the text tower's have width {width}")
    if text_config is None:
        return None
    layers, act = text_config["num_hidden_layers"], text_config.get("hidden_act", "quick_gelu")
    own = "quick_gelu" if isinstance(tower.transformer.resblocks[0].mlp.gelu, QuickGELU) else "gelu"
    if layers not in (depth - 1, depth):
        raise ValueError(f"{apart}: the image model's own text encoder has {layers} layers, the text tower {depth}")
    if act != own:
        raise ValueError(f"{apart}: the image model's own text encoder computes with {act}, the text tower with {own}")
    return depth if layers == depth else None


def _end_padded(tokenize: Callable, pad_token: str | None, described: str) -> SimpleTokenizer:
    if not isinstance(tokenize, SimpleTokenizer) or pad_token not in (None, _END_MARK):
        raise ValueError(f"{described}: padding with {pad_token!r} is not known for {type(tokenize).__name__}")
    return EndPaddedTokenizer(context_length=tokenize.context_length)

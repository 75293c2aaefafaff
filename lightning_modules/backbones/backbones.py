"""Backbones: the networks and tokenizers of a profile under one roof, whatever they were loaded or built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from lightning_modules.frozen_features import ImageVectorEncoder, ImageVectors, LatentEncoder, digest_of
from lightning_modules.frozen_precision import FrozenPrecision
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_encoder import FineGrainedTextEncoder
from lightning_modules.text_to_image import TextToImage


@dataclass
class Backbones:
    """The frozen (or, for the text tower, initial) networks of a profile and their tokenizers.

    `tokenize` maps texts to OpenCLIP ids, int64 (B, 77). `image_mean` and `image_std` are OpenCLIP's. `conditioning_blocks` is the number
    of the text tower's blocks that the UNet's text states come after, None for all but the last. `commits` names what was fetched from a
    hub, as OWNER/NAME@COMMIT.
    """

    name: str
    clip_model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    text_to_image: TextToImage
    decoder: PromptDecoder
    conditioning_blocks: int | None = None
    commits: dict[str, str] = field(default_factory=dict)
    _encoders: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def digest(self) -> str:
        """Digest of every weight and of the noise schedule."""
        model = self.text_to_image
        # Private entries say how the config came about (a set's order, a version, a path), not what it is.
        schedule = sorted((key, value) for key, value in model.noise_scheduler.config.items() if not key.startswith("_"))
        # Left out at Stable Diffusion 2's own values, so that digests from before they could differ stay.
        reading = [part for part in (self.conditioning_blocks, self.pad_id) if part]
        return digest_of((self.name, schedule, *reading), self.clip_model, model.vae, model.unet, self.decoder.t5)

    @cached_property
    def text_encoder(self) -> FineGrainedTextEncoder:
        """The original, frozen text encoder: what Stable Diffusion reads prompts with. It shares the OpenCLIP model's parameters."""
        return FineGrainedTextEncoder(self.clip_model, self.conditioning_blocks, share=True).eval().requires_grad_(False)

    def new_text_encoder(self) -> FineGrainedTextEncoder:
        """E_T at step 0: a copy of the text tower, to be trained. It is on the CPU, wherever the tower is."""
        return FineGrainedTextEncoder(self.clip_model, self.conditioning_blocks).cpu().requires_grad_(True)

    @property
    def pad_id(self) -> int:
        """What `tokenize` pads with."""
        return getattr(self.tokenize, "pad_token_id", 0)

    def frozen_networks(self) -> dict[str, nn.Module]:
        """The networks that are never trained, by name; E_T starts as a copy of OpenCLIP's text tower, which stays as it was."""
        model = self.text_to_image
        return {"OpenCLIP": self.clip_model, "VAE": model.vae, "UNet": model.unet, "T5": self.decoder.t5}

    def cast_frozen(self, precision: FrozenPrecision) -> None:
        """Bring UNet, VAE, image tower and T5 to a precision; the text tower, which E_T starts from, stays as it is."""
        self._encoders.clear()
        model = self.text_to_image
        for network, dtype in (
            (model.vae, precision.vae),
            (model.unet, precision.networks),
            (self.clip_model.visual, precision.networks),
            (self.decoder.t5, precision.t5),
        ):
            if dtype is not next(network.parameters()).dtype:
                network.to(dtype)

    @property
    def joint_width(self) -> int:
        """E, the width of OpenCLIP's joint space."""
        return self.clip_model.visual.output_dim

    def latent_encoder(self) -> LatentEncoder:
        """The same one every time: its digest reads all of the VAE's weights."""
        if "latents" not in self._encoders:
            self._encoders["latents"] = LatentEncoder(self.text_to_image)
        return self._encoders["latents"]

    def image_vector_encoder(self, grid: int, reads: ImageVectors = "class_and_patches") -> ImageVectorEncoder:
        """The same one every time for equal arguments, as `latent_encoder`."""
        if (grid, reads) not in self._encoders:
            self._encoders[grid, reads] = ImageVectorEncoder(self.clip_model, self.image_mean, self.image_std, grid, reads)
        return self._encoders[grid, reads]

    @property
    def t5_pad_id(self) -> int:
        """What T5's ids are padded with."""
        return self.decoder.tokenizer.pad_token_id

    def tokenize_t5(self, texts: list[str]) -> list[list[int]]:
        """T5's ids of each text, the end token included."""
        return self.decoder.tokenizer(texts).input_ids

    def count_tokens(self, text: str) -> int:
        """How many OpenCLIP tokens a text has, start and end marks not counted; 75 for every text that fills the tower's positions."""
        # The end mark is the largest id. Counting what is not padding would miss "!", whose id is 0 as well.
        return int(self.tokenize([text]).argmax()) - 1

    def token_ids(self, text: str) -> list[int]:
        """OpenCLIP's ids of a text with start and end mark, however many. Raises ValueError for a tokenizer that cannot tell."""
        if not isinstance(self.tokenize, SimpleTokenizer):
            raise ValueError(f"{type(self.tokenize).__name__} cuts long prompts itself: set eval.long_prompts=truncate")
        return [self.tokenize.sot_token_id, *self.tokenize.encode(text), self.tokenize.eot_token_id]

    def num_chunks(self, text: str) -> int:
        """How many times the text tower's positions the text needs, 1 at least."""
        return -(-len(self.token_ids(text)) // self.text_encoder.context_length)

    def to(self, device: torch.device) -> Backbones:
        """Move the frozen networks; E_T is a copy and moves with its module."""
        self.clip_model.to(device)
        self.text_to_image.to(device)
        self.decoder.to(device)
        self.text_encoder.to(device)
        return self

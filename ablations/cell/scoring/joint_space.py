"""The backbones' OpenCLIP as the metrics want it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lightning_modules.backbones.backbones import Backbones


class JointSpace:
    """The backbones' OpenCLIP as the metrics want it: uint8 pictures or texts in, embeddings (N, E) out."""

    def __init__(self, backbones: Backbones):
        self._backbones = backbones
        self._images = backbones.image_vector_encoder(grid=1)

    @torch.no_grad()
    def encode_image(self, images_NHWC: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(images_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._images.encode(pixels)["image_pooled"].cpu()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        device = self._backbones.text_to_image.device
        return self._backbones.text_encoder(self._backbones.tokenize(list(texts)).to(device)).pooled_BE.cpu()

"""Frozen features of pictures, in the form in which a cache can keep them: VAE posteriors and OpenCLIP vectors.

Shapes in this file: B = pictures, K = vectors of a picture, E = width of OpenCLIP's joint space, W = width of its image tower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.frozen_precision import in_precision_of, outside_autocast
from lightning_modules.text_to_image import TextToImage

# Vectors of a picture that a reading of AFE may read.
ImageVectors = Literal["class_and_patches", "layers", "pooled"]
NUM_LAYERS = 4


def digest_of(parts: Iterable[object], *modules: nn.Module) -> str:
    """A hexadecimal SHA-256 of settings and weights, 16 digits: equal in every process, wherever the weights lie."""
    sha = hashlib.sha256(repr(tuple(parts)).encode())
    for module in modules:
        for name, value in sorted(module.state_dict().items()):
            sha.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha.hexdigest()[:16]


class LatentEncoder:
    """The VAE posterior's mean and log-variance of pictures, never a sample and never scaled."""

    name = "latents"

    def __init__(self, text_to_image: TextToImage):
        self._model = text_to_image
        self.digest = digest_of(("latents", "float32", text_to_image.image_size), text_to_image.vae)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        size = self._model.unet.config.sample_size
        shape = (self._model.vae.config.latent_channels, size, size)
        return {"latent_mean": shape, "latent_logvar": shape}

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        device = self._model.device
        with outside_autocast(device):  # so that features of a training step equal those that a cache was filled with
            mean, logvar = self._model.encode(images_BCHW.to(device))
        return {"latent_mean": mean.float(), "latent_logvar": logvar.float()}


class ImageVectorEncoder:
    """OpenCLIP's picture of an image in the joint space: its own pooled feature and, as a reading of AFE asks, further vectors.

    `reads` says which: "class_and_patches", the class token and the patch tokens after the tower's final norm and projection, the patch
    tokens average-pooled to `grid` x `grid`, so K = 1 + grid^2; "layers", the class tokens after a quarter, half, three quarters and all
    of the tower's layers, through the same norm and projection, K = 4; "pooled", none. Reconstructed: the paper does not say what AFE
    reads. Pictures come in [-1, 1].
    """

    name = "image_vectors"

    def __init__(
        self, clip_model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], grid: int, reads: ImageVectors = "class_and_patches"
    ):
        self._visual = clip_model.visual.eval().requires_grad_(False)
        self._grid, self._reads = grid, reads
        self._mean, self._std = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
        side = self._visual.image_size
        self._size = (side, side) if isinstance(side, int) else tuple(side)
        tokens, depth = self._visual.grid_size[0], len(self._visual.transformer.resblocks)
        if reads == "class_and_patches" and grid > tokens:
            raise ValueError(f"afe.grid is {grid}, but the image tower has only {tokens} x {tokens} patches")
        if reads == "layers" and depth < NUM_LAYERS:
            raise ValueError(f"AFE reads {NUM_LAYERS} layers, but the image tower has only {depth}")
        self._blocks = [depth * (number + 1) // NUM_LAYERS - 1 for number in range(NUM_LAYERS)] if reads == "layers" else [depth - 1]
        what = {"class_and_patches": (grid,), "layers": ("layers", *self._blocks), "pooled": ("pooled",)}[reads]
        self.digest = digest_of(("image_vectors", "float32", *what, mean, std, self._size), self._visual)

    @property
    def width(self) -> int:
        """E."""
        return self._visual.output_dim

    def shapes(self) -> dict[str, tuple[int, ...]]:
        vectors = {"class_and_patches": 1 + self._grid**2, "layers": NUM_LAYERS, "pooled": 0}[self._reads]
        return ({"image_vectors": (vectors, self.width)} if vectors else {}) | {"image_pooled": (self.width,)}

    def preprocess(self, images_BCHW: Tensor) -> Tensor:
        """From [-1, 1] at any size to what the image tower reads."""
        device = next(self._visual.parameters()).device
        pixels = (images_BCHW.to(device) + 1) / 2
        if pixels.shape[-2:] != self._size:
            pixels = F.interpolate(pixels, self._size, mode="bicubic", antialias=True).clamp(0, 1)
        return (pixels - self._mean.to(device)) / self._std.to(device)

    @torch.no_grad()
    def encode(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        with outside_autocast(next(self._visual.parameters()).device):
            return self._encode(in_precision_of(self._visual, self.preprocess(images_BCHW)))

    def _encode(self, pixels_BCHW: Tensor) -> dict[str, Tensor]:
        output = self._visual.forward_intermediates(
            pixels_BCHW, indices=self._blocks, output_fmt="NLC", normalize_intermediates=True, output_extra_tokens=True
        )
        patches, class_tokens = output["image_intermediates"], output["image_intermediates_prefix"]
        if self._reads == "class_and_patches":
            vectors_BKW = torch.cat([class_tokens[-1], self._pooled_patches(patches[-1])], dim=1)
        else:
            vectors_BKW = torch.cat(class_tokens, dim=1)
        features = {"image_vectors": (vectors_BKW @ self._visual.proj).float(), "image_pooled": output["image_features"].float()}
        return {name: features[name] for name in self.shapes()}

    def _pooled_patches(self, patches_BPW: Tensor) -> Tensor:
        """Patch tokens (B, P, W) as means of the cells of a grid, (B, grid^2, W)."""
        side = self._visual.grid_size[0]
        grid_BWPP = patches_BPW.transpose(1, 2).unflatten(2, (side, side))
        return F.adaptive_avg_pool2d(grid_BWPP, self._grid).flatten(2).transpose(1, 2)

"""What N, adaptive feature extraction (AFE), gives, and what all of its readings share: soft dynamic weights, their sum, their twins.

How the weights come about is reconstructed: `readings` holds the ways.
Shapes: B = batch, M = images, T = texts, K = what is weighed in an image (or H, K: with H heads), V = feature vectors of an image,
E = joint-space width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.settings import AFESettings

# Standard deviation of a frozen twin's logits over pictures: about .6 of the largest entropy, for 4 weights as for 16.
_FROZEN_SHARPNESS = 2.0


class AdaptiveFeatures(NamedTuple):
    """`representation_BE` is the weighted sum; `weights_BK`, or (B, H, K) with heads, sum to 1 over K."""

    representation_BE: Tensor
    weights_BK: Tensor

    def entropy(self) -> Tensor:
        """Mean entropy of the weights in nats, a scalar between 0 (one vector) and log K (all alike)."""
        return entropy(self.weights_BK).mean()

    def class_token_mass(self) -> Tensor:
        """Mean weight of what stands first, a scalar in [0, 1]; near 1 where that is the class token, AFE has collapsed to no AFE."""
        return self.weights_BK[..., 0].mean()


class Pictures(NamedTuple):
    """Frozen features of images: the vectors that the reading reads (M, V, E), and the tower's own pooled feature (M, E)."""

    vectors_MVE: Tensor
    pooled_ME: Tensor

    @classmethod
    def of(cls, pooled_ME: Tensor, vectors_MVE: Tensor | None) -> Pictures:
        """With the pooled feature as the only vector where there are no others."""
        return cls(pooled_ME.unsqueeze(1) if vectors_MVE is None else vectors_MVE, pooled_ME)


def entropy(weights_BK: Tensor) -> Tensor:
    """Entropy in nats over the last axis, between 0 and log K."""
    return -(weights_BK * weights_BK.clamp_min(1e-12).log()).sum(dim=-1)


class Reading(nn.Module, ABC):
    """One way to understand AFE: logits of what it weighs, a softmax, and the sum.

    A subclass says what its vectors are (`reads`: "class_and_patches", the class token and the pooled patch tokens; "layers", the class
    tokens of four layers, the last layer's last; "pooled", the pooled feature as the only vector), keeps the network that weighs as
    `dynamic_weights`, and defines `logits` and `combine`; `asks_text` where the logits depend on the text too, `class_token_first`
    where the first weight is the class token's.

    Two twins are controls (`settings.weights`). "uniform": the same parameters, equal weights. "frozen": a network that weighs at random
    and is never trained; its logits are brought to mean 0 and one spread for every weight over the fitting pictures, so that it is
    sharp and prefers nothing on average. What passes a check in its frozen twin has not been learned.
    """

    reads = "class_and_patches"
    asks_text = False
    class_token_first = False
    dynamic_weights: nn.Module

    def __init__(self, settings: AFESettings):
        super().__init__()
        if settings.temperature <= 0:
            raise ValueError(f"AFE's temperature must be positive, got {settings.temperature}")
        self.temperature = settings.temperature
        self.twin = settings.weights
        if self.twin == "frozen":
            self.register_buffer("logits_mean", torch.zeros(1))
            self.register_buffer("logits_spread", torch.ones(1))

    @abstractmethod
    def logits(self, vectors_BVE: Tensor, text_BE: Tensor | None) -> Tensor:
        """Logits (B, K), or (B, H, K) with heads, of the images' weights; row i of the texts asks image i."""

    @abstractmethod
    def combine(self, vectors_BVE: Tensor, weights_BK: Tensor) -> Tensor:
        """The representation (B, E) of images under these weights, whosever they are."""

    def fit(self, vectors_NVE: Tensor) -> None:
        """Start from pictures: called once, before the first step of a training. Float32 on the CPU; most readings have no use for it."""

    def weights(self, vectors_BVE: Tensor, text_BE: Tensor | None = None) -> Tensor:
        """The weights (B, K), or (B, H, K), of images; they sum to 1 over the last axis."""
        if self.twin == "learned":
            return (self.logits(vectors_BVE, text_BE) / self.temperature).softmax(dim=-1)
        with torch.no_grad():
            logits_BK = self.logits(vectors_BVE, text_BE)
            if self.twin == "uniform":
                return torch.full_like(logits_BK, 1 / logits_BK.shape[-1])
            return (_FROZEN_SHARPNESS * (logits_BK - self.logits_mean) / self.logits_spread).softmax(dim=-1)

    def forward(self, vectors_BVE: Tensor, text_BE: Tensor | None = None) -> AdaptiveFeatures:
        weights_BK = self.weights(vectors_BVE, text_BE)
        return AdaptiveFeatures(self.combine(vectors_BVE, weights_BK), weights_BK)

    @property
    def starts_from_pictures(self) -> bool:
        """Whether `start` does anything."""
        return self.twin == "frozen" or type(self).fit is not Reading.fit

    @torch.no_grad()
    def start(self, vectors_NVE: Tensor, text_NE: Tensor | None = None) -> None:
        """In the frozen twin centre the logits, then fit what starts from pictures; row i of the texts belongs to picture i."""
        if self.twin == "frozen":
            logits_NK = self.logits(vectors_NVE, text_NE)
            self.logits_mean, self.logits_spread = logits_NK.mean(dim=0), logits_NK.std(dim=0).clamp_min(1e-6)
        self.fit(vectors_NVE)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *others) -> None:
        """The frozen twin's centre has the shape of its logits, which only the pictures told."""
        for name in ("logits_mean", "logits_spread"):
            if self.twin == "frozen" and prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *others)

    def untrained_parameters(self) -> list[nn.Parameter]:
        """Those that a twin has and does not train: its network that weighs."""
        return [] if self.twin == "learned" else list(self.dynamic_weights.parameters())


def network_that_weighs(width: int, settings: AFESettings, outputs: int) -> nn.Sequential:
    """f: LayerNorm, Linear, GELU, Linear, from a vector (..., E) to `outputs` logits.

    It starts with equal weights: its last layer is zero, so that what it prefers is learned; in the frozen twin it stays random.
    """
    network = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, outputs))
    if settings.weights != "frozen":
        nn.init.zeros_(network[-1].weight)
        nn.init.zeros_(network[-1].bias)
    return network


def representations(reading: Reading | None, pictures: Pictures, text_TE: Tensor) -> Tensor:
    """What texts are compared with: (M, E), or (T, M, E) where the representation of an image depends on the text that asks.

    Without AFE it is the images' own pooled feature.
    """
    if reading is None:
        return pictures.pooled_ME
    if not reading.asks_text:
        return reading(pictures.vectors_MVE).representation_BE
    num_texts, num_images = len(text_TE), len(pictures.vectors_MVE)
    vectors_BVE = pictures.vectors_MVE.repeat(num_texts, 1, 1)
    return reading(vectors_BVE, text_TE.repeat_interleave(num_images, dim=0)).representation_BE.unflatten(0, (num_texts, num_images))


def forcing_term(reading: Reading, own_BE: Tensor, vectors_BVE: Tensor, others_MVE: Tensor, text_BE: Tensor, scale: float) -> Tensor:
    """The counterfactual term, a scalar: a text must fit its picture under the picture's own weights better than under another's.

    mean_i softplus(-s [cos(t_i, r(v_i, w(v_i))) - cos(t_i, r(v_i, w(v_{i+1})))])        (our addition)

    `own_BE` are r(v_i, w(v_i)). The term forces the weights to matter, whether or not they help. The other picture of image i of B is the
    next of `others_MVE`, which begins with the B images themselves.
    """
    nexts_B = (torch.arange(len(text_BE), device=text_BE.device) + 1) % len(others_MVE)
    other_BE = reading.combine(vectors_BVE, reading.weights(others_MVE[nexts_B], text_BE))
    own_B, other_B = (F.cosine_similarity(text_BE.float(), image_BE.float(), dim=-1) for image_BE in (own_BE, other_BE))
    return F.softplus(-scale * (own_B - other_B)).mean()

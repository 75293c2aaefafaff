"""What N, adaptive feature extraction (AFE), gives: soft dynamic weights of an image's feature vectors, and their sum.

How the weights come about is reconstructed: `readings` holds the ways.
Shapes: B = batch, K = feature vectors of an image (class token first, then pooled patch tokens), E = joint-space width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class AdaptiveFeatures(NamedTuple):
    """`representation_BE` is the weighted sum, `weights_BK` sum to 1 over K."""

    representation_BE: Tensor
    weights_BK: Tensor

    def entropy(self) -> Tensor:
        """Mean entropy of the weights in nats, a scalar between 0 (one vector) and log K (all alike)."""
        return -(self.weights_BK * self.weights_BK.clamp_min(1e-12).log()).sum(dim=-1).mean()

    def class_token_mass(self) -> Tensor:
        """Mean weight of the class token, a scalar in [0, 1]; near 1, AFE has collapsed to no AFE."""
        return self.weights_BK[:, 0].mean()

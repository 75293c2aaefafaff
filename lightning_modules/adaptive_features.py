"""N, adaptive feature extraction (AFE): soft dynamic weights over an image's feature vectors.

Reconstructed: the paper names a dynamic weight network and soft dynamic weights, but published neither formula nor code.
Shapes: B = batch, K = feature vectors of an image (class token first, then pooled patch tokens), E = joint-space width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


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


class AdaptiveFeatureExtraction(nn.Module):
    """A two-layer network gives each vector a logit; softmax(logit / temperature) weighs the vectors.

    It starts with equal weights: its last layer is zero, so that what it prefers is learned.
    """

    def __init__(self, width: int, hidden: int = 64, temperature: float = 1.0):
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"AFE's temperature must be positive, got {temperature}")
        self.temperature = temperature
        self.dynamic_weights = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))
        nn.init.zeros_(self.dynamic_weights[-1].weight)
        nn.init.zeros_(self.dynamic_weights[-1].bias)

    def forward(self, vectors_BKE: Tensor) -> AdaptiveFeatures:
        logits_BK = self.dynamic_weights(vectors_BKE).squeeze(-1)
        weights_BK = (logits_BK / self.temperature).softmax(dim=-1)
        return AdaptiveFeatures((weights_BK.unsqueeze(-1) * vectors_BKE).sum(dim=1), weights_BK)

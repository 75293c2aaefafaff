"""AFE as soft weights over the class token and the pooled patch tokens, in OpenCLIP's joint space. Reconstructed.

w = softmax(f(v_k) / temperature),  representation = sum_k w_k v_k,  f: LayerNorm, Linear, GELU, Linear
Shapes: B = batch, K = feature vectors of an image (class token first, then pooled patch tokens), E = joint-space width.
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.adaptive_features import AdaptiveFeatures
from lightning_modules.settings import AFESettings


class ClassAndPatches(nn.Module):
    """A two-layer network gives each vector a logit; softmax(logit / temperature) weighs the vectors.

    It starts with equal weights: its last layer is zero, so that what it prefers is learned.
    """

    def __init__(self, width: int, settings: AFESettings):
        super().__init__()
        if settings.temperature <= 0:
            raise ValueError(f"AFE's temperature must be positive, got {settings.temperature}")
        self.temperature = settings.temperature
        self.dynamic_weights = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, 1)
        )
        nn.init.zeros_(self.dynamic_weights[-1].weight)
        nn.init.zeros_(self.dynamic_weights[-1].bias)

    def forward(self, vectors_BKE: Tensor) -> AdaptiveFeatures:
        logits_BK = self.dynamic_weights(vectors_BKE).squeeze(-1)
        weights_BK = (logits_BK / self.temperature).softmax(dim=-1)
        return AdaptiveFeatures((weights_BK.unsqueeze(-1) * vectors_BKE).sum(dim=1), weights_BK)


READING = ClassAndPatches

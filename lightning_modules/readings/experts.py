"""AFE as a soft mixture of four projections of the pooled feature, chosen by the picture. Reconstructed.

w = softmax(f(p) / temperature),  representation = sum_m w_m P_m p,  f: LayerNorm, Linear, GELU, Linear
Source of the idea: mixtures of experts with a dense gate. Every P_m starts as a random rotation: experts that start alike stay alike. It
costs 74 thousand parameters in the tiny profile, and nothing in the cache beyond the pooled feature p.
Shapes: B = batch, K = 4 experts, E = joint-space width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading, network_that_weighs
from lightning_modules.settings import AFESettings

NUM_EXPERTS = 4


class Experts(Reading):
    """A two-layer network reads the pooled feature and gives each projection of it a logit."""

    reads = "pooled"

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = network_that_weighs(width, settings, NUM_EXPERTS)
        self.projections_KEE = nn.Parameter(torch.empty(NUM_EXPERTS, width, width))
        for projection_EE in self.projections_KEE.data:
            nn.init.orthogonal_(projection_EE)

    def logits(self, vectors_B1E: Tensor, text_BE: Tensor | None) -> Tensor:
        return self.dynamic_weights(vectors_B1E[:, 0])

    def combine(self, vectors_B1E: Tensor, weights_BK: Tensor) -> Tensor:
        return torch.einsum("bk,bd,kde->be", weights_BK, vectors_B1E[:, 0], self.projections_KEE)


READING = Experts

"""AFE as soft weights over the class tokens of four layers of the image tower, each through a projection of its own. Reconstructed.

w = softmax(f(p) / temperature),  representation = sum_l w_l P_l c_l,  f: LayerNorm, Linear, GELU, Linear
Source of the idea: features of several depths, weighed by the picture, as in feature pyramids and layer attention. c_l is the class token
after a quarter, half, three quarters and all of the layers, through the tower's last norm and projection; the last one is the pooled
feature p. Every P_l starts as the identity. It costs 74 thousand parameters in the tiny profile and 4 further vectors a picture in the
cache.
Shapes: B = batch, K = 4 layers, E = joint-space width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading, network_that_weighs
from lightning_modules.frozen_features import NUM_LAYERS
from lightning_modules.settings import AFESettings


class Layers(Reading):
    """A two-layer network reads the pooled feature and gives each layer a logit."""

    reads = "layers"

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = network_that_weighs(width, settings, NUM_LAYERS)
        self.projections_KEE = nn.Parameter(torch.eye(width).repeat(NUM_LAYERS, 1, 1))

    def logits(self, vectors_BKE: Tensor, text_BE: Tensor | None) -> Tensor:
        return self.dynamic_weights(vectors_BKE[:, -1])

    def combine(self, vectors_BKE: Tensor, weights_BK: Tensor) -> Tensor:
        return torch.einsum("bk,bkd,kde->be", weights_BK, vectors_BKE, self.projections_KEE)


READING = Layers

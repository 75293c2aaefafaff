"""AFE as soft weights over the patch tokens alone, read through one learned projection. Reconstructed.

w = softmax(f(x_k) / temperature),  representation = P sum_k w_k x_k,  f: LayerNorm, Linear, GELU, Linear
Source of the idea: the paper's soft weights over image features, with the class token out of their reach, onto which they collapse.
Patch tokens were never trained in the joint space: P starts as the ridge regression of the pooled feature on the mean patch token. It
costs 25 thousand parameters in the tiny profile, grid^2 further vectors a picture in the cache, and retrieval.
Shapes: B = batch, V = class token and K pooled patch tokens, E = joint-space width, N = fitting pictures.
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading, network_that_weighs
from lightning_modules.ridge import ridge_regression
from lightning_modules.settings import AFESettings


class Patches(Reading):
    """A two-layer network gives each patch token a logit; the weighted sum goes through a projection."""

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = network_that_weighs(width, settings, 1)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)

    def fit(self, vectors_NVE: Tensor) -> None:
        self.projection.weight.copy_(ridge_regression(vectors_NVE[:, 1:].mean(dim=1), vectors_NVE[:, 0]).T)

    def logits(self, vectors_BVE: Tensor, text_BE: Tensor | None) -> Tensor:
        return self.dynamic_weights(vectors_BVE[:, 1:]).squeeze(-1)

    def combine(self, vectors_BVE: Tensor, weights_BK: Tensor) -> Tensor:
        return self.projection((weights_BK.unsqueeze(-1) * vectors_BVE[:, 1:]).sum(dim=1))


READING = Patches

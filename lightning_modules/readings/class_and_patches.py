"""AFE as soft weights over the class token and the pooled patch tokens, in OpenCLIP's joint space. Reconstructed; kept as history.

w = softmax(f(v_k) / temperature),  representation = sum_k w_k v_k,  f: LayerNorm, Linear, GELU, Linear
Source of the idea: the paper's words alone, "soft dynamic weights" over image features. It collapses onto the class token, which is the
pooled feature itself, within the first tenth of a training: then it is no AFE. It costs 9 thousand parameters in the tiny profile and
grid^2 further vectors a picture in the cache.
Shapes: B = batch, K = feature vectors of an image (class token first, then pooled patch tokens), E = joint-space width.
"""

from __future__ import annotations

from torch import Tensor

from lightning_modules.adaptive_features import Reading, network_that_weighs
from lightning_modules.settings import AFESettings


class ClassAndPatches(Reading):
    """A two-layer network gives each vector a logit; softmax(logit / temperature) weighs the vectors."""

    class_token_first = True

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = network_that_weighs(width, settings, 1)

    def logits(self, vectors_BKE: Tensor, text_BE: Tensor | None) -> Tensor:
        return self.dynamic_weights(vectors_BKE).squeeze(-1)

    def combine(self, vectors_BKE: Tensor, weights_BK: Tensor) -> Tensor:
        return (weights_BK.unsqueeze(-1) * vectors_BKE).sum(dim=1)


READING = ClassAndPatches

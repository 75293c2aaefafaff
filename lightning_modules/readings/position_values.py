"""AFE as attention of the class token to the patches, with a value projection for every position. Reconstructed.

w_h = softmax(t q_h(c) . k_h(x_k) / temperature),  representation = concat_h [sum_k w_hk V_k x_k]_h,  4 heads, t learned from 5
Source of the idea: attention pooling (the last layer of OpenAI's CLIP-ResNets), with values that know where they look. Patch tokens were
never trained in the joint space, and one projection for all of them costs retrieval; the V_k start as the ridge regression of the pooled
feature on all patch tokens under the first weights. No forcing term is needed: t makes the weights sharp at the start. It costs 297
thousand parameters in the tiny profile (grid^2 E^2 of them values), grid^2 further vectors a picture in the cache, and seconds of fitting.
Shapes: B = batch, V = class token and K pooled patch tokens, H = heads, E = joint-space width = H F, N = fitting pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading
from lightning_modules.attention_weights import AttentionLogits
from lightning_modules.ridge import ridge_regression
from lightning_modules.settings import AFESettings

NUM_HEADS, FIRST_FACTOR = 4, 5.0


class PositionValues(Reading):
    """The class token queries the patch tokens in four heads; each position has values of its own."""

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        if width % NUM_HEADS:
            raise ValueError(f"the reading position_values has {NUM_HEADS} heads, which do not divide the joint space's width {width}")
        self.dynamic_weights = AttentionLogits(width, settings.grid**2, NUM_HEADS, FIRST_FACTOR)
        self.values_KEE = nn.Parameter(torch.eye(width).repeat(settings.grid**2, 1, 1))

    def fit(self, vectors_NVE: Tensor) -> None:
        weights_NHK, patches_NKE = self.weights(vectors_NVE), vectors_NVE[:, 1:]
        values_KEHF = self.values_KEE.unflatten(-1, (NUM_HEADS, -1))
        targets_NHF = vectors_NVE[:, 0].unflatten(-1, (NUM_HEADS, -1))
        for head in range(NUM_HEADS):
            weighed_NI = (weights_NHK[:, head, :, None] * patches_NKE).flatten(1)
            values_KEHF[:, :, head] = ridge_regression(weighed_NI, targets_NHF[:, head]).view(
                patches_NKE.shape[1], patches_NKE.shape[2], -1
            )

    def logits(self, vectors_BVE: Tensor, text_BE: Tensor | None) -> Tensor:
        return self.dynamic_weights(vectors_BVE[:, 0], vectors_BVE[:, 1:])

    def combine(self, vectors_BVE: Tensor, weights_BHK: Tensor) -> Tensor:
        values_BKHF = torch.einsum("bkd,kde->bke", vectors_BVE[:, 1:], self.values_KEE).unflatten(-1, (NUM_HEADS, -1))
        return torch.einsum("bhk,bkhf->bhf", weights_BHK, values_BKHF).flatten(1)


READING = PositionValues

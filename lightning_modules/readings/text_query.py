"""AFE as attention of the text to the patches: what is looked at in a picture depends on who asks. Reconstructed.

w = softmax(t q(E_T(T_C)) . k(x_k) / temperature),  representation = P sum_k w_k x_k
Source of the idea: cross-attention pooling, as in text-conditioned retrieval. The representation belongs to a pair of text and picture, so
L_clip compares each text with every picture as that text reads it. P starts as in `patches`. It costs 51 thousand parameters in the tiny
profile, B x M representations a step, grid^2 further vectors a picture in the cache, and retrieval.
Shapes: B = pairs of text and picture, V = class token and K pooled patch tokens, E = joint-space width, N = fitting pictures.
"""

from __future__ import annotations

from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading
from lightning_modules.attention_weights import AttentionLogits
from lightning_modules.ridge import ridge_regression
from lightning_modules.settings import AFESettings


class TextQuery(Reading):
    """E_T's pooled feature queries the patch tokens; their weighted sum goes through a projection."""

    asks_text = True

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = AttentionLogits(width, settings.grid**2, heads=1, factor=1.0)
        self.projection = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.projection.weight)

    def fit(self, vectors_NVE: Tensor) -> None:
        self.projection.weight.copy_(ridge_regression(vectors_NVE[:, 1:].mean(dim=1), vectors_NVE[:, 0]).T)

    def logits(self, vectors_BVE: Tensor, text_BE: Tensor | None) -> Tensor:
        if text_BE is None:
            raise ValueError("the reading text_query weighs a picture for a text, and was given none")
        return self.dynamic_weights(text_BE, vectors_BVE[:, 1:]).squeeze(1)

    def combine(self, vectors_BVE: Tensor, weights_BK: Tensor) -> Tensor:
        return self.projection((weights_BK.unsqueeze(-1) * vectors_BVE[:, 1:]).sum(dim=1))


READING = TextQuery

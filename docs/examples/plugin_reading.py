"""A reading of AFE from outside the package: soft weights over the halves of the pooled feature, so that nothing can take them all.

python -m ablations.run plugins=plugin_reading afe.reading=halves
"""

from torch import Tensor, nn

from lightning_modules.adaptive_features import Reading
from lightning_modules.readings import register
from lightning_modules.settings import AFESettings


class Halves(Reading):
    """representation = P [w_1 p_1, w_2 p_2], p = [p_1, p_2] the pooled feature, w = softmax(f(p) / temperature), P a projection."""

    reads = "pooled"

    def __init__(self, width: int, settings: AFESettings):
        super().__init__(settings)
        self.dynamic_weights = nn.Linear(width, 2)
        self.projection = nn.Linear(width, width)

    def logits(self, vectors_B1E: Tensor, text_BE: Tensor | None) -> Tensor:
        """Logits (B, 2) of the weights; with `asks_text = True` they may depend on the text too."""
        return self.dynamic_weights(vectors_B1E[:, 0])

    def combine(self, vectors_B1E: Tensor, weights_B2: Tensor) -> Tensor:
        """The representation (B, E) under any weights: the pictures' own, their mean's, another picture's."""
        return self.projection((weights_B2.unsqueeze(-1) * vectors_B1E[:, 0].unflatten(-1, (2, -1))).flatten(1))


register("halves", Halves)

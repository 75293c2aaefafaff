"""A reading of AFE from outside the package: soft weights over the patch tokens alone, so that the class token cannot take them all.

python -m ablations.run plugins=plugin_reading afe.reading=patches_alone
"""

from torch import Tensor, nn

from lightning_modules.adaptive_features import AdaptiveFeatures
from lightning_modules.readings import register
from lightning_modules.settings import AFESettings


class PatchesAlone(nn.Module):
    """representation = P sum_k w_k v_k over the patch tokens v_k, w = softmax(f(v_k) / temperature), P a projection."""

    def __init__(self, width: int, settings: AFESettings):
        super().__init__()
        self.temperature = settings.temperature
        self.weigh = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, settings.hidden), nn.GELU(), nn.Linear(settings.hidden, 1))
        self.projection = nn.Linear(width, width)

    def forward(self, vectors_BKE: Tensor) -> AdaptiveFeatures:
        """Image vectors (B, K, E), class token first, to a representation (B, E) and weights (B, K); the class token's weight is 0."""
        patches_BKE = vectors_BKE[:, 1:]
        weights_BK = (self.weigh(patches_BKE).squeeze(-1) / self.temperature).softmax(dim=-1)
        representation_BE = self.projection((weights_BK.unsqueeze(-1) * patches_BKE).sum(dim=1))
        return AdaptiveFeatures(representation_BE, nn.functional.pad(weights_BK, (1, 0)))


register("patches_alone", PatchesAlone)

"""A, the domain adapter: from OpenCLIP's feature space to T5's."""

from __future__ import annotations

from torch import Tensor, nn


class DomainAdapter(nn.Module):
    """Maps every text position from CLIP's width D to T5's width H: Linear D -> 2D, ReLU, Linear 2D -> H, ReLU.

    The last ReLU is the authors' (read in their training script); `output_relu=False` leaves it out. Shapes: (B, S, D) to
    (B, S, H).
    """

    def __init__(self, clip_width: int, t5_width: int, output_relu: bool = True):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(clip_width, 2 * clip_width), nn.ReLU(), nn.Linear(2 * clip_width, t5_width)]
        if output_relu:
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, states_BSD: Tensor) -> Tensor:
        return self.layers(states_BSD)

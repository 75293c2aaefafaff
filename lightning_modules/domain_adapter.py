"""A, the domain adapter: from OpenCLIP's feature space to T5's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DomainAdapter(nn.Module):
    """Maps every text position from CLIP's width D to T5's width H: Linear D -> 2D, ReLU, Linear 2D -> H, ReLU.

    The last ReLU is the authors' (read in their training script); `output_relu=False` leaves it out: T5's own embeddings are
    signed, and what A writes stands in for them. Shapes: (B, S, D) to (B, S, H).
    """

    def __init__(self, clip_width: int, t5_width: int, output_relu: bool = True):
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(clip_width, 2 * clip_width), nn.ReLU(), nn.Linear(2 * clip_width, t5_width)]
        if output_relu:
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, states_BSD: Tensor) -> Tensor:
        return self.layers(states_BSD)

    @torch.no_grad()
    def match_scale(self, states_BSD: Tensor, target_rms: float) -> None:
        """Scale the last layer so that the root mean square of A(states) is `target_rms`.

        PyTorch's initialisation leaves A's output several times smaller than T5's embeddings. T5 adds each block's output to
        its input, so a small input is drowned, and A learns late to be read. Raises ValueError where A(states) is all zero.
        """
        rms = self(states_BSD).pow(2).mean().sqrt().item()
        if rms == 0:
            raise ValueError("the adapter's output is all zero: its scale cannot be matched")
        last = self.layers[2]
        last.weight.mul_(target_rms / rms)
        last.bias.mul_(target_rms / rms)

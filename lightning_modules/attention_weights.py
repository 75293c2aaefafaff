"""A query that asks vectors, as in attention, for a logit of each and in each head. `readings` that query share it.

logit_hk = factor q_h . k_hk / sqrt(E / H),   q = W_q LayerNorm(asking),   k_k = W_k LayerNorm(x_k) + e_k
Shapes: B = batch, H = heads, K = vectors that are asked, E = width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class AttentionLogits(nn.Module):
    """Logits (B, H, K) of K vectors for one that asks them. `factor` is learned from the value given, and stays positive."""

    def __init__(self, width: int, positions: int, heads: int, factor: float):
        super().__init__()
        self.heads = heads
        self.of_asking, self.of_asked = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.positions = nn.Parameter(torch.zeros(positions, width))
        self.log_factor = nn.Parameter(torch.tensor(math.log(factor)))

    def forward(self, asking_BE: Tensor, vectors_BKE: Tensor) -> Tensor:
        query_BHF = self.query(self.of_asking(asking_BE)).unflatten(-1, (self.heads, -1))
        keys_BKHF = (self.key(self.of_asked(vectors_BKE)) + self.positions).unflatten(-1, (self.heads, -1))
        logits_BHK = torch.einsum("bhf,bkhf->bhk", query_BHF, keys_BKHF) / math.sqrt(query_BHF.shape[-1])
        return self.log_factor.exp() * logits_BHK

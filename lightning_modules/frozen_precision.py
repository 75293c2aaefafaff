"""The precision that frozen networks are kept in: halved, they need half the memory and round what they compute.

What is trained, and the text tower that E_T starts from, stays in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def precision_named(name: str) -> torch.dtype:
    """The dtype of a name in PRECISIONS. Raises ValueError for another name."""
    if name not in PRECISIONS:
        raise ValueError(f"backbones.frozen_dtype={name} is unknown: take {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def t5_precision(frozen: torch.dtype) -> torch.dtype:
    """T5 overflows in float16, whose largest number is 65,504: it stays in float32 there."""
    return torch.float32 if frozen is torch.float16 else frozen


def in_precision_of(network: nn.Module, values: Tensor) -> Tensor:
    """`values` as a half-precision network can read them; as they are for a float32 network, so that autocast rules there."""
    dtype = next(network.parameters()).dtype
    return values if dtype is torch.float32 else values.to(dtype)

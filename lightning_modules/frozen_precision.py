"""The precision that frozen networks are kept in, and compute in: halved, they need half the memory and round what they compute.

What is trained, and the text tower that E_T starts from, stays in float32. Mixed precision (autocast) is for what is trained alone: a
frozen network runs outside it, in the precision that it is kept in, so that its weights are never cast in a training step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class FrozenPrecision(NamedTuple):
    """What UNet and image tower, the VAE, and T5 are kept in."""

    networks: torch.dtype = torch.float32
    vae: torch.dtype = torch.float32
    t5: torch.dtype = torch.float32

    @classmethod
    def named(cls, frozen: str, vae: str | None = None) -> FrozenPrecision:
        """Of the names in PRECISIONS; the VAE's is that of the others where none is given. Raises ValueError for another name.

        T5 overflows in float16, whose largest number is 65,504: it stays in float32 there.
        """
        for key, name in (("frozen_dtype", frozen), ("vae_dtype", vae)):
            if name is not None and name not in PRECISIONS:
                raise ValueError(f"backbones.{key}={name} is unknown: take {', '.join(PRECISIONS)}")
        networks = PRECISIONS[frozen]
        return cls(networks, PRECISIONS[vae or frozen], torch.float32 if networks is torch.float16 else networks)


FLOAT32 = FrozenPrecision()


def in_precision_of(network: nn.Module, values: Tensor) -> Tensor:
    """`values` as the network can read them."""
    return values.to(next(network.parameters()).dtype)


def outside_autocast(device: torch.device) -> torch.autocast:
    """Switches mixed precision off, for a frozen network within a training step."""
    return torch.autocast(device.type, enabled=False)

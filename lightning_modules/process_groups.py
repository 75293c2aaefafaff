"""Tensors of several processes as one, within a group of them, with gradients.

Lightning's own gathering takes a process's part of the gradient by its rank in the world, which is another one within a group.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group, ctx.count = group, len(tensor)
        parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(parts, tensor.contiguous(), group=group)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient, group=ctx.group)
        start = distributed.get_rank(ctx.group) * ctx.count
        return gradient[start : start + ctx.count], None


def gathered(tensor: Tensor, group: ProcessGroup) -> Tensor:
    """The tensors (B, ...) of a group's processes in their order, (processes * B, ...), in each of them.

    What flows back to each is the sum of the gradients that all of them have for its part.
    """
    return _Gathered.apply(tensor, group)

"""Prompts that are longer than the text encoder's context: cut into chunks, encoded one by one, and put side by side.

As the authors of UF-FGTG did: the ids of the whole prompt, with one start mark and one end mark, are cut every 77, and a prompt is
not padded; the empty prompt is padded to the same length. A text-to-image UNet reads any number of positions.

Shapes: B = prompts, S = text positions, D = text width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def padded_length(length: int, context_length: int) -> int:
    """The positions of as many whole chunks as a prompt of `length` tokens needs."""
    return -(-length // context_length) * context_length


def pad(ids: Sequence[int], length: int, pad_id: int) -> list[int]:
    """Token ids with `pad_id` behind them, `length` in all. Raises ValueError for more ids than that."""
    if len(ids) > length:
        raise ValueError(f"{len(ids)} token ids do not fit into {length} positions")
    return [*ids, *[pad_id] * (length - len(ids))]


@torch.no_grad()
def encode_in_chunks(encode: Callable[[Tensor], Tensor], ids_BS: Tensor, context_length: int) -> Tensor:
    """States (B, S, D) of int64 ids (B, S), every `context_length` positions by themselves; the last chunk may be shorter."""
    return torch.cat([encode(chunk_BS) for chunk_BS in ids_BS.split(context_length, dim=1)], dim=1)

"""E_T, the fine-grained text encoder: OpenCLIP's text tower, read at two places in one pass.

Shapes in this file: B = batch, S = text positions (77), D = text width, E = width of OpenCLIP's joint space.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class TextFeatures(NamedTuple):
    """`states_BSD` is what Stable Diffusion's UNet reads, `pooled_BE` the joint-space feature that L_clip reads."""

    states_BSD: Tensor
    pooled_BE: Tensor


def text_mask(tokens_BS: Tensor) -> Tensor:
    """Which positions hold text, start and end token included: int64 (B, S), 1 or 0. The end token is the largest id."""
    positions_S = torch.arange(tokens_BS.shape[1], device=tokens_BS.device)
    return (positions_S <= tokens_BS.argmax(dim=-1, keepdim=True)).long()


class FineGrainedTextEncoder(nn.Module):
    """E_T: token ids in, Stable Diffusion's text conditioning and OpenCLIP's pooled text feature out.

    The conditioning is the output of the last but one block, normalised by the tower's final layer norm, as in Stable
    Diffusion 2; the pooled feature is the tower's own: last block, final norm, the end token's position, projection.
    `blocks` is the number of blocks that the conditioning comes after, None for all but the last; Stable Diffusion 1 reads
    the last one. Built from a *copy* of an OpenCLIP model's text tower, so that training it leaves the model as it was;
    `share=True` takes the model's own parameters, for an encoder that is not trained. Raises ValueError for a number of
    blocks that the tower does not have.
    """

    def __init__(self, clip_model: nn.Module, blocks: int | None = None, share: bool = False):
        super().__init__()
        tower = getattr(clip_model, "text", clip_model)
        depth = len(tower.transformer.resblocks)
        if blocks is None and depth < 2:
            raise ValueError("the text tower needs at least two blocks: Stable Diffusion reads the last but one")
        self.blocks = depth - 1 if blocks is None else blocks
        if not 1 <= self.blocks <= depth:
            raise ValueError(f"the text tower has {depth} blocks: states after block {blocks} cannot be read")
        # Part by part: a copy of the whole model would hold its image tower too, if only for a moment.
        take = (lambda part: part) if share else copy.deepcopy
        self.token_embedding = take(tower.token_embedding)
        self.positional_embedding = take(tower.positional_embedding)
        self.transformer = take(tower.transformer)
        self.ln_final = take(tower.ln_final)
        self.text_projection = take(tower.text_projection)
        self.register_buffer("attn_mask", tower.attn_mask.clone(), persistent=False)

    @property
    def width(self) -> int:
        """D, the width of the text states."""
        return self.positional_embedding.shape[1]

    @property
    def context_length(self) -> int:
        """S, the number of text positions."""
        return self.positional_embedding.shape[0]

    def parameters_of_pooled_alone(self) -> list[nn.Parameter]:
        """What the pooled feature reads and the text states do not: the blocks behind these, and the projection."""
        projection = self.text_projection
        return [
            *(parameter for block in self.transformer.resblocks[self.blocks :] for parameter in block.parameters()),
            *(projection.parameters() if isinstance(projection, nn.Module) else [projection]),
        ]

    def forward(self, tokens_BS: Tensor) -> TextFeatures:
        """Encode int64 ids, padded behind the end token, which is the largest id. S may be shorter than the context length."""
        length = tokens_BS.shape[1]
        x_BSD = self.token_embedding(tokens_BS) + self.positional_embedding[:length]
        x_BSD, (read_BSD,) = self.transformer.forward_intermediates(
            x_BSD, attn_mask=self.attn_mask[:length, :length], indices=[self.blocks - 1]
        )
        ends_B = tokens_BS.argmax(dim=-1)
        pooled_BD = self.ln_final(x_BSD)[torch.arange(len(tokens_BS), device=tokens_BS.device), ends_B]
        projection = self.text_projection
        pooled_BE = projection(pooled_BD) if isinstance(projection, nn.Linear) else pooled_BD @ projection
        return TextFeatures(self.ln_final(read_BSD), pooled_BE)

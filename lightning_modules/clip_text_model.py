"""E_T and its tokenizer as transformers' CLIPTextModel and CLIPTokenizer, and back: what diffusers' pipelines take.

Stable Diffusion 2 reads the last but one block, normalised by the tower's final layer norm. Its CLIPTextModel therefore has one
block fewer than OpenCLIP's tower (Stable Diffusion 1 reads the last: as many), and its `last_hidden_state` is what the UNet reads.
What is left over, a last block that is not read and the projection, serves the pooled joint feature alone and is kept beside it.

Shapes in this file: D = text width, S = text positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import QuickGELU
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lightning_modules.text_encoder import FineGrainedTextEncoder

# A block's parameters, transformers' name to OpenCLIP's; attention's input projections are one matrix in OpenCLIP.
_BLOCK = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
_PROJECTIONS = ("q_proj", "k_proj", "v_proj")
_TOP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}


def clip_text_config(encoder: FineGrainedTextEncoder) -> CLIPTextConfig:
    """The config of the CLIPTextModel that equals E_T's states: as many blocks as come before them.

    Raises ValueError for a tower that a CLIPTextModel cannot hold: another activation than GELU or QuickGELU, or layer scale.
    """
    blocks = encoder.transformer.resblocks
    block, projection = blocks[0], encoder.text_projection
    if any(not isinstance(scale, nn.Identity) for one in blocks for scale in (one.ls_1, one.ls_2)):
        raise ValueError("a text tower with layer scale has no CLIPTextModel: it cannot be exported")
    vocabulary = encoder.token_embedding.num_embeddings
    return CLIPTextConfig(
        architectures=["CLIPTextModel"],
        vocab_size=vocabulary,
        hidden_size=encoder.width,
        intermediate_size=block.mlp.c_fc.out_features,
        projection_dim=projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1],
        num_hidden_layers=encoder.blocks,
        num_attention_heads=block.attn.num_heads,
        max_position_embeddings=encoder.context_length,
        hidden_act=_activation(block.mlp.gelu),
        layer_norm_eps=encoder.ln_final.eps,
        pad_token_id=0,
        # OpenCLIP's vocabularies end in the two marks; E_T finds the end of a text as its largest id.
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        dtype="float32",
    )


def _activation(layer: nn.Module) -> str:
    if isinstance(layer, QuickGELU):
        return "quick_gelu"
    if isinstance(layer, nn.GELU):
        return "gelu" if layer.approximate == "none" else "gelu_pytorch_tanh"
    raise ValueError(f"a text tower with {type(layer).__name__} has no CLIPTextModel: it cannot be exported")


def split_state(state: Mapping[str, Tensor], blocks: int | None = None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """E_T's weights as (those of the CLIPTextModel under its names, those that only the pooled joint feature needs under ours).

    `blocks` is E_T's number of blocks before the UNet's text states; None for all but the last.
    """
    last = _last_block(state) if blocks is None else blocks
    ours = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    theirs = {name: ours.pop(own) for name, own in _TOP.items()}
    for i in range(last):
        there, here = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            for name, own in _BLOCK.items():
                theirs[f"{there}.{name}.{kind}"] = ours.pop(f"{here}.{own}.{kind}")
            parts = ours.pop(f"{here}.attn.in_proj_{kind}").chunk(3)
            theirs |= {f"{there}.self_attn.{name}.{kind}": part.clone() for name, part in zip(_PROJECTIONS, parts, strict=True)}
    assert all(name.startswith((f"transformer.resblocks.{last}.", "text_projection")) for name in ours), sorted(ours)
    return theirs, ours


def join_state(theirs: Mapping[str, Tensor], pooled: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """E_T's weights out of what `split_state` made of them. Raises KeyError for a weight that is not there."""
    state = dict(pooled) | {own: theirs[name] for name, own in _TOP.items()}
    for i in range(1 + max(int(name.split(".")[2]) for name in theirs if name.startswith("encoder.layers."))):
        there, here = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            state |= {f"{here}.{own}.{kind}": theirs[f"{there}.{name}.{kind}"] for name, own in _BLOCK.items()}
            state[f"{here}.attn.in_proj_{kind}"] = torch.cat([theirs[f"{there}.self_attn.{name}.{kind}"] for name in _PROJECTIONS])
    return state


def _last_block(state: Mapping[str, Tensor]) -> int:
    return max(int(name.split(".")[2]) for name in state if name.startswith("transformer.resblocks."))


def to_clip_text_model(encoder: FineGrainedTextEncoder) -> CLIPTextModel:
    """A CLIPTextModel, float32 and in eval mode, whose `last_hidden_state` (B, S, D) equals E_T's `states_BSD`.

    Both attend causally and to padding alike: call it without an attention mask, as Stable Diffusion does.
    """
    with torch.random.fork_rng(devices=[]):  # its initialisation, overwritten at once, draws from the global generator
        model = CLIPTextModel(clip_text_config(encoder))
    model.load_state_dict(split_state(encoder.state_dict(), encoder.blocks)[0])
    return model.float().eval().requires_grad_(False)


def to_clip_tokenizer(tokenize: Callable) -> CLIPTokenizer:
    """A CLIPTokenizer that gives the ids of OpenCLIP's tokenizer, padded with 0 to its context length.

    Equal for every text that OpenCLIP's cleaning leaves alone. It first repairs Unicode (ftfy: curly quotes become straight, broken
    encodings whole) and HTML entities, which no CLIPTokenizer does; OpenCLIP's names of the two marks, typed in a prompt, are
    ordinary text here. Raises ValueError for a tokenizer of another kind.
    """
    if not isinstance(tokenize, SimpleTokenizer):
        raise ValueError(f"only OpenCLIP's SimpleTokenizer can become a CLIPTokenizer, not {type(tokenize).__name__}")
    start, end = tokenize.decoder[tokenize.sot_token_id], tokenize.decoder[tokenize.eot_token_id]
    return CLIPTokenizer(
        vocab={token: number for token, number in tokenize.encoder.items() if token},
        merges=[merge for merge in tokenize.bpe_ranks if merge],
        unk_token=end,
        bos_token=start,
        eos_token=end,
        # OpenCLIP pads with id 0, which is also the first half of "!!". As a special token it would be cut out of every text
        # that has a "!", as it is by Stable Diffusion 2's own tokenizer; unsplit, it pads and nothing else.
        pad_token=tokenize.decoder[getattr(tokenize, "pad_token_id", 0)],
        split_special_tokens=True,
        model_max_length=tokenize.context_length,
    )

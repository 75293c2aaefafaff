"""The paper's architectures at full size with random weights, for a rehearsal: no download, and no score that means anything.

The shapes are written down in `paper/*.json`, one file per architecture; OpenCLIP's come from OpenCLIP's own model configs. The
libraries' initialisation of two billion weights takes minutes; here one short pattern of normal numbers is laid out again and again,
scaled to each layer. T5's 32,000 pieces cannot be shipped: the rehearsal reads with the tiny world's pieces, filled up with made-up
words to T5's number, so that lengths, ids and the output layer are of real size and its texts are not.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from zlib import crc32

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from lightning_modules.backbones.assembling import T5, ImageNetworks, OpenClip, assemble
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.tiny import TINY
from lightning_modules.frozen_precision import FLOAT32, FrozenPrecision

ARCHITECTURES = Path(__file__).parents[1] / "paper"
T5_PIECES, T5_SENTINELS = 32_000, 100
# A prime, so that the rows of a matrix begin at different places of the pattern.
_PATTERN_LENGTH = 1_000_003
_EMBEDDING_STD = 0.02


def random_paper_backbones(sources: PaperSources, seed: int, precision: FrozenPrecision = FLOAT32) -> Backbones:
    """The networks that `sources` names with random weights, each a function of `seed` and its own name.

    Raises ValueError, one line, for an architecture that is not written down here or by OpenCLIP.
    """
    image_model, t5_shape = _architecture("image_model", sources.image_model, "unet"), _architecture("t5", sources.t5, "t5")["t5"]
    if sources.open_clip_name not in open_clip.list_models():
        raise ValueError(f"backbones.open_clip={sources.open_clip}: OpenCLIP has no model {sources.open_clip_name!r}")
    with _without_initialisation():
        vae, unet = AutoencoderKL(**image_model["vae"]), UNet2DConditionModel(**image_model["unet"])
        t5 = T5ForConditionalGeneration(T5Config(**t5_shape))
        clip_model = open_clip.create_model(
            sources.open_clip_name, pretrained=None, pretrained_text=False, force_quick_gelu=sources.quick_gelu
        )
    # Cast before they are filled: memory that was never written is not held.
    frozen = precision.networks
    for network, dtype in ((vae, precision.vae), (unet, frozen), (t5, precision.t5), (clip_model.visual, frozen)):
        if dtype is not torch.float32:
            network.to(dtype)
    for network in (vae, unet, t5, clip_model):
        _fill(network, seed)
    return assemble(
        "paper-random",
        ImageNetworks(
            vae,
            unet,
            DDPMScheduler.from_config(image_model["scheduler"]),
            text_config=image_model["text_encoder"],
            pad_token=image_model["pad_token"],
        ),
        OpenClip(clip_model, open_clip.get_tokenizer(sources.open_clip_name)),
        T5(t5, rehearsal_tokenizer()),
        described=str(sources),
    )


def _architecture(key: str, source: str, part: str) -> dict:
    """What is written down about a hub id, found by its name; the owner and the revision do not matter for its shape."""
    name = source.partition("@")[0].rpartition("/")[2]
    written = {path.stem: path for path in sorted(ARCHITECTURES.glob("*.json")) if part in json.loads(path.read_text())}
    if name not in written:
        known = ", ".join(written)
        raise ValueError(f"backbones.{key}={source} with backbones.init=random: only the shapes of {known} are written down, not of {name}")
    return json.loads(written[name].read_text())


def rehearsal_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny world's pieces, filled up with made-up words that no text contains, to 32,000 and T5's 100 sentinels."""
    content = json.loads((TINY / "t5_tokenizer.json").read_text())
    pieces = content["model"]["vocab"]
    known = {piece for piece, _ in pieces}
    words = ("\u2581" + "".join(letters) for letters in product(ascii_lowercase, repeat=4))
    pieces += [[word, -1000.0] for word in (word for word in words if word not in known)][: T5_PIECES - len(pieces)]
    plain = [token for token in content["added_tokens"] if not token["content"].startswith("<extra_id_")]
    sentinel = plain[0]
    content["added_tokens"] = plain + [
        {**sentinel, "id": T5_PIECES + number, "content": f"<extra_id_{number}>"} for number in range(T5_SENTINELS)
    ]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class _NoDraws(TorchFunctionMode):
    """Leaves out what draws a tensor's values in place; constants are still written."""

    _CONSTANTS = ("constant_", "ones_", "zeros_")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        initialises = getattr(func, "__module__", None) == "torch.nn.init" and name.endswith("_") and name not in self._CONSTANTS
        if initialises or name in ("normal_", "uniform_", "erfinv_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def _without_initialisation() -> Iterator[None]:
    """Networks built inside have weights without values, except for constants such as those of norms; chance is left as it was."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)  # OpenCLIP warns that there are no weights, which was asked for
    try:
        with torch.random.fork_rng(devices=[]), _NoDraws():
            torch.manual_seed(0)  # a few small tensors are made by torch.randn, which is no initialisation of an existing one
            yield
    finally:
        logging.getLogger().setLevel(level)


@torch.no_grad()
def _fill(network: nn.Module, seed: int) -> None:
    """Give every matrix, filter and embedding normal numbers of a size that keeps signals in range, and biases zero."""
    pattern = torch.from_numpy(np.random.default_rng([seed, _PATTERN_LENGTH]).standard_normal(_PATTERN_LENGTH, dtype=np.float32))
    filled: set[int] = set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.data_ptr() in filled:
                continue
            filled.add(parameter.data_ptr())
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.ndim > 1:
                _lay_out(pattern, crc32(f"{prefix}.{name}".encode()), parameter, _standard_deviation(module, name, parameter))


def _standard_deviation(module: nn.Module, name: str, parameter: nn.Parameter) -> float:
    if isinstance(module, nn.Embedding) or name == "positional_embedding":
        return _EMBEDDING_STD
    if name in ("proj", "text_projection"):  # OpenCLIP multiplies by these from the right
        return parameter.shape[0] ** -0.5
    return math.sqrt(parameter.shape[0] / parameter.numel())


def _lay_out(pattern: torch.Tensor, start: int, parameter: nn.Parameter, std: float) -> None:
    start %= _PATTERN_LENGTH
    tile = torch.cat([pattern[start:], pattern[:start]]).mul_(std).to(parameter.dtype)
    flat = parameter.data.view(-1)
    whole = len(flat) // _PATTERN_LENGTH
    flat[: whole * _PATTERN_LENGTH].view(whole, _PATTERN_LENGTH).copy_(tile.expand(whole, -1))
    flat[whole * _PATTERN_LENGTH :].copy_(tile[: len(flat) - whole * _PATTERN_LENGTH])

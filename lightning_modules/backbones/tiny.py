"""The tiny networks: shipped, or of the same shape with random weights.

Architectures are in `tiny/configs`, weights in `tiny/*.safetensors` (half precision on disk, float32 in memory), made by
`python -m ablations.pretrain_tiny`; `tiny/provenance.json` says how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.whole_files import in_one_line, require_no_pointer, require_whole
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_to_image import TextToImage

TINY = Path(__file__).parents[1] / "tiny"
TINY_PARTS = ("open_clip", "vae", "unet", "t5")


def _config(name: str, directory: Path) -> dict:
    return json.loads((directory / "configs" / f"{name}.json").read_text())


def clip_tokenizer(directory: Path = TINY) -> SimpleTokenizer:
    """The tiny OpenCLIP's tokenizer."""
    context_length = _config("open_clip", directory)["text_cfg"]["context_length"]
    return SimpleTokenizer(bpe_path=str(directory / "clip_merges.txt.gz"), context_length=context_length)


def clip_config(tokenizer: SimpleTokenizer, directory: Path = TINY) -> dict[str, Any]:
    """What `open_clip.model.CLIP` makes the tiny OpenCLIP of."""
    config = _config("open_clip", directory)
    config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    return config


def build_tiny_networks(directory: Path = TINY) -> tuple[dict[str, nn.Module], SimpleTokenizer, PreTrainedTokenizerFast, DDPMScheduler]:
    """The tiny architectures with fresh weights (keys: open_clip, vae, unet, t5), tokenizers and noise schedule."""
    t5_tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "t5_tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer = clip_tokenizer(directory)
    t5_config = _config("t5", directory)
    t5_config["vocab_size"] = len(t5_tokenizer)
    networks = {
        "open_clip": CLIP(**clip_config(tokenizer, directory)),
        "vae": AutoencoderKL(**_config("vae", directory)),
        "unet": UNet2DConditionModel(**_config("unet", directory)),
        "t5": T5ForConditionalGeneration(T5Config(**t5_config)),
    }
    return networks, tokenizer, t5_tokenizer, DDPMScheduler(**_config("scheduler", directory))


def load_tiny_backbones(directory: Path = TINY) -> Backbones:
    """The embedded backbones. Raises FileNotFoundError naming the weights that are not in `directory`, and ValueError, one line, for files
    that are damaged."""
    missing = [part for part in TINY_PARTS if not (directory / f"{part}.safetensors").exists()]
    if missing:
        raise FileNotFoundError(f"tiny weights {', '.join(missing)} are not in {directory}: run python -m ablations.pretrain_tiny")
    # A folder that pre-training wrote is complete; one that holds weights alone fits the embedded architectures.
    require_whole(directory)
    with in_one_line(f"the architecture of the tiny networks in {directory}"):
        networks, tokenizer, t5_tokenizer, scheduler = build_tiny_networks(directory if (directory / "configs").is_dir() else TINY)
    for part, network in networks.items():
        load_weights(network, directory / f"{part}.safetensors")
    return _tiny_backbones("tiny", networks, tokenizer, t5_tokenizer, scheduler)


def random_tiny_backbones(seed: int) -> Backbones:
    """The tiny architectures without pre-training, every weight a function of `seed`: for tests, and as a control."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _tiny_backbones("tiny-random", *build_tiny_networks())


def _tiny_backbones(
    name: str, networks: dict[str, nn.Module], tokenizer: SimpleTokenizer, t5_tokenizer: PreTrainedTokenizerFast, scheduler: DDPMScheduler
) -> Backbones:
    return Backbones(
        name=name,
        clip_model=networks["open_clip"].eval().requires_grad_(False),
        tokenize=tokenizer,
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        text_to_image=TextToImage(networks["vae"], networks["unet"], scheduler),
        decoder=PromptDecoder(networks["t5"], t5_tokenizer),
    )


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a safetensors file into a network of the same keys, in float32; tied weights may be stored once.

    Raises ValueError, one line, for a file that is damaged or does not fit.
    """
    require_no_pointer(path)
    with in_one_line(path):
        state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
        missing, unexpected = network.load_state_dict(state, strict=False)
    own = network.state_dict()
    loaded = {own[name].data_ptr() for name in state if name in own}
    absent = [name for name in missing if own[name].data_ptr() not in loaded]
    if unexpected or absent:
        raise ValueError(f"{path} does not fit its network: missing {sorted(absent)}, unexpected {sorted(unexpected)}")

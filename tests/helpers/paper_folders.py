"""A folder of the paper's backbones with small networks, as diffusers, OpenCLIP and transformers save them, and a hub's cache of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import open_clip
import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from lightning_modules.backbones.backbones import Backbones

CLIP_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def save_paper_folder(folder: Path, small_backbones: Backbones) -> Path:
    """Writes stable-diffusion/, open_clip/ and t5/ below `folder`, float32 safetensors throughout."""
    torch.manual_seed(4)
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae.save_pretrained(folder / "stable-diffusion" / "vae")
    unet.save_pretrained(folder / "stable-diffusion" / "unet")
    # 2.1-base ships the config of this scheduler; training reads the noise schedule out of it.
    PNDMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, skip_prk_steps=True, steps_offset=1).save_pretrained(
        folder / "stable-diffusion" / "scheduler"
    )
    (folder / "open_clip").mkdir()
    clip_model = open_clip.model.CLIP(**CLIP_CONFIG)
    save_file(clip_model.state_dict(), folder / "open_clip" / "open_clip_pytorch_model.safetensors")
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    (folder / "open_clip" / "open_clip_config.json").write_text(json.dumps(config))
    small_backbones.decoder.t5.save_pretrained(folder / "t5")
    small_backbones.decoder.tokenizer.save_pretrained(folder / "t5")
    return folder


def pickled(path: Path, name: str) -> None:
    """Replaces a safetensors file by what torch.save makes of it, under another name."""
    torch.save(load_file(path), path.with_name(name))
    path.unlink()


def in_half(path: Path, name: str) -> None:
    """Replaces a safetensors file by one in float16, under another name."""
    save_file({key: value.half() for key, value in load_file(path).items()}, path.with_name(name), metadata={"format": "pt"})
    path.unlink()


def put_in_cache(cache: Path, repository: str, commit: str, content: Path, ref: str | None = None) -> Path:
    """Puts a copy of a folder into a hub's cache, as a snapshot of a commit, and returns it; `ref` is a branch that points to it."""
    at = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(content, at / "snapshots" / commit)
    (at / "refs").mkdir(exist_ok=True)
    (at / "blobs").mkdir(exist_ok=True)
    if ref:
        (at / "refs" / ref).write_text(commit)
    return at / "snapshots" / commit

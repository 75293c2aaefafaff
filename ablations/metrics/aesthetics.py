"""LAION aesthetics: how much people would like a picture, by a linear head on CLIP ViT-L/14 (improved-aesthetic-predictor, sac+logos+ava1).

CLIP is OpenAI's own file, read by OpenCLIP: pyiqa's laion_aes wants the package openai-clip, which current setuptools cannot import.
Preprocessing is CLIP's: the shorter side to 224 px by Pillow's bicubic, the centre 224 x 224, CLIP's means and deviations.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ablations.metrics.base import UNBOUNDED, Inputs, Metric
from ablations.metrics.register import register
from ablations.metrics.weights import path_of
from ablations.runtime.errors import UserError

CLIP_FILE, HEAD_FILE = "ViT-L-14.pt", "sac+logos+ava1-l14-linearMSE.pth"
# The head's linear layers within its file; between them stood dropout, and no activation.
_LAYERS = (0, 2, 4, 6, 7)


def laion_aesthetics(inputs: Inputs) -> np.ndarray:
    """The score of each picture, usually 1 to 10: float64 (N,). Pictures are uint8 (N, H, W, 3). Raises UserError without weights."""
    import torch
    from PIL import Image

    clip, preprocess, head = _networks(path_of(CLIP_FILE, inputs.folder), path_of(HEAD_FILE, inputs.folder), inputs.device)
    with torch.inference_mode():
        pixels_NCHW = torch.stack([preprocess(Image.fromarray(image)) for image in np.ascontiguousarray(inputs.images_NHWC)])
        features_NE = clip.encode_image(pixels_NCHW.to(inputs.device)).float()
        return head(torch.nn.functional.normalize(features_NE, dim=1))[:, 0].cpu().double().numpy()


@functools.cache
def _networks(clip_path: Path, head_path: Path, device: str) -> tuple[Any, Any, Any]:
    import open_clip
    import torch
    from torch import nn

    clip = open_clip.load_openai_model(str(clip_path), precision="fp32", device=device).eval()
    size = clip.visual.image_size
    preprocess = open_clip.image_transform(size, is_train=False, mean=open_clip.OPENAI_DATASET_MEAN, std=open_clip.OPENAI_DATASET_STD)
    state = torch.load(head_path, map_location="cpu", weights_only=True)
    try:
        linears = [nn.Linear(*reversed(state[f"layers.{i}.weight"].shape)) for i in _LAYERS]
        for layer, i in zip(linears, _LAYERS, strict=True):
            layer.load_state_dict({"weight": state[f"layers.{i}.weight"], "bias": state[f"layers.{i}.bias"]})
    except KeyError as error:
        raise UserError(f"{head_path} has no {error}: it is not the head of LAION aesthetics") from error
    return clip, preprocess, nn.Sequential(*linears).eval().requires_grad_(False).to(device)


LAION_AESTHETICS = register(
    Metric(
        name="laion-aesthetics",
        title="LAION aesthetics",
        per="image",
        higher_is_better=True,
        range=(-UNBOUNDED, UNBOUNDED),
        needs=("images",),
        licence="Apache-2.0 (this project); head: Apache-2.0; CLIP: MIT",
        note="usually 1 to 10; a linear head on CLIP ViT-L/14, sac+logos+ava1",
        source="Schuhmann 2022, improved-aesthetic-predictor",
        small_below=224,
        weights=(CLIP_FILE, HEAD_FILE),
        pixels_at_once=sys.maxsize,  # whatever their size, the network sees 224 px
        function=laion_aesthetics,
    )
)

"""The judge: the CLIP model whose embeddings the scores of pictures use, which is another one than is trained and draws.

L_clip pulls the trained encoder into the joint space of the profile's OpenCLIP, and the same model tells the UNet what to draw: its
opinion of the pictures would praise what agrees with it. The tiny profile's judge is an OpenCLIP of the same size from another seed, on
captions and pictures of its own (`python -m ablations.pretrain_tiny judge`); it has read no world's pairing of words. The paper profile's
is OpenAI's ViT-L/14, the file that LAION aesthetics reads too.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ablations.metrics import weights as weight_files
from ablations.metrics.base import ClipEncoder
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).with_name("tiny_judge_clip.safetensors")
OPENAI_FILE = "ViT-L-14.pt"
TINY, OPENAI, CONDITIONING = "tiny", "ViT-L-14/openai", "conditioning"
# What a judge decides of a picture or of a set of them.
JUDGED = ("clip_score", "clip_score_coarse", "clip_distance", "vendi")


@dataclass(frozen=True)
class Judge:
    """`encoder` None is the OpenCLIP that conditions the image model or, with a `problem`, nobody. `key` names its embeddings."""

    encoder: ClipEncoder | None = None
    key: str = CONDITIONING
    problem: str = ""


def judge_asked_for(judge: str | None, profile: str) -> str:
    """Which judge eval.judge=`judge` is: null means the profile's own."""
    return judge or (TINY if profile == "tiny" else OPENAI)


def judge_by(name: str, missing: str = "error", folder: Path | None = None, device: str = "cpu") -> Judge:
    """The judge called `name`, loaded. `missing` is eval.missing_metrics: with "skip" the problem is returned.

    Raises UserError where its weights are missing and it is not to be skipped.
    """
    if name == CONDITIONING:
        return Judge()
    if name == TINY:
        return Judge(_tiny(device), f"{TINY}-{weight_files.digest_of(WEIGHTS)[:8]}")
    if problem := problem_of(name, folder):
        if missing == "error":
            raise UserError(refusal(problem))
        return Judge(problem=problem)
    path = weight_files.path_of(OPENAI_FILE, folder)
    return Judge(_openai(path, device), f"vit-l-14-{weight_files.digest_of(path)[:8]}")


def problem_of(name: str, folder: Path | None = None, look_inside: bool = True) -> str:
    """Why the judge cannot be loaded; "" where it can."""
    return weight_files.problem_of([OPENAI_FILE], folder, look_inside) if name == OPENAI else ""


def refusal(problem: str) -> str:
    """What a user is told of a judge that cannot be loaded."""
    return (
        f"eval.judge: {' and '.join(JUDGED[:2])} cannot be computed ({problem}). Remedy: get it with `python -m ablations.metrics fetch "
        "laion-aesthetics`, set eval.judge=conditioning for the OpenCLIP that also draws, or eval.missing_metrics=skip, and tables will "
        "say not available"
    )


class ClipJudge:
    """A CLIP model as the metrics want it: uint8 pictures (N, H, W, 3) or texts in, embeddings (N, E) out."""

    def __init__(self, model: Any, preprocess: Any, tokenize: Any, device: str):
        self._model, self._preprocess, self._tokenize, self._device = model, preprocess, tokenize, device

    def encode_image(self, images_NHWC: np.ndarray) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._model.encode_image(self._preprocess(images_NHWC).to(self._device)).float().cpu()

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            return self._model.encode_text(self._tokenize(list(texts)).to(self._device)).float().cpu()


@functools.lru_cache(maxsize=1)
def _tiny(device: str) -> ClipJudge:
    import torch
    from open_clip.model import CLIP

    from lightning_modules.backbones.tiny import clip_config, clip_tokenizer

    tokenizer = clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        model = CLIP(**clip_config(tokenizer))
    weight_files.load_shipped(model, WEIGHTS)

    def preprocess(images_NHWC: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(images_NHWC)).permute(0, 3, 1, 2).float() / 127.5 - 1

    return ClipJudge(model.eval().requires_grad_(False).to(device), preprocess, tokenizer, device)


@functools.lru_cache(maxsize=1)
def _openai(path: Path, device: str) -> ClipJudge:
    import open_clip
    import torch
    from PIL import Image

    model = open_clip.load_openai_model(str(path), precision="fp32", device=device).eval()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    transform = open_clip.image_transform(model.visual.image_size, is_train=False, mean=mean, std=std)

    def preprocess(images_NHWC: np.ndarray) -> torch.Tensor:
        return torch.stack([transform(Image.fromarray(image)) for image in np.ascontiguousarray(images_NHWC)])

    return ClipJudge(model, preprocess, open_clip.get_tokenizer("ViT-L-14"), device)

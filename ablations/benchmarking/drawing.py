"""Drawing by our code against a plain diffusers pipeline: the same networks, sampler, steps, guidance and pictures at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline

from ablations.benchmarking.sizes import Size
from ablations.benchmarking.timing import Timed, alternating
from ablations.cell.drawing.pictures import Sampling, draw_texts
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.clip_text_model import to_clip_text_model, to_clip_tokenizer

GUIDANCE = 7.0
_PROMPT = "a lonely lighthouse on a cliff above the sea"


def compare_drawing(size: Size, backbones: Backbones, device: torch.device, repeats: int, check: Callable[[], None]) -> dict[str, Timed]:
    """Seconds for `size.drawn` pictures, by each in turn."""
    pipeline = plain_pipeline(backbones, device)
    works = {"ours": lambda: draw_ours(size, backbones), "pipeline": lambda: draw_plainly(size, pipeline, device)}
    return alternating(works, repeats, device, check)


def draw_ours(size: Size, backbones: Backbones) -> np.ndarray:
    """Pictures, uint8 (size.drawn, H, W, 3), as a cell draws them."""
    sampling = Sampling(size.steps, GUIDANCE, size.drawn)
    return draw_texts(backbones, backbones.text_encoder, [_PROMPT] * size.drawn, list(range(size.drawn)), sampling)


def plain_pipeline(backbones: Backbones, device: torch.device) -> StableDiffusionPipeline:
    """diffusers' own pipeline around the same networks."""
    model = backbones.text_to_image
    pipeline = StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=to_clip_text_model(backbones.text_encoder).to(model.unet.dtype),
        tokenizer=to_clip_tokenizer(backbones.tokenize),
        unet=model.unet,
        scheduler=EulerAncestralDiscreteScheduler.from_config(model.noise_scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def draw_plainly(size: Size, pipeline: StableDiffusionPipeline, device: torch.device) -> Any:
    """The same number of pictures by the pipeline."""
    generators = [torch.Generator("cpu").manual_seed(number) for number in range(size.drawn)]
    drawn = pipeline(
        [_PROMPT] * size.drawn,
        num_inference_steps=size.steps,
        guidance_scale=GUIDANCE,
        generator=generators,
        output_type="np",
    )
    return drawn.images

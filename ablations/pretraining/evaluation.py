"""Stage 7: what the tiny diffusion model draws from held-out prompts, fine against coarse at equal image noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ablations.metrics.fidelity import fidelity
from ablations.metrics.word_oracle import words_seen
from ablations.reporting.statistics import paired_difference
from datamodules.tiny_world.grammar import coarse_prompts, draw_split
from lightning_modules.backbones.backbones import Backbones

STEPS, GUIDANCE = 15, 7.0


@torch.no_grad()
def draw_prompts(backbones: Backbones, texts: list[str], seeds: list[int], steps: int = STEPS, guidance: float = GUIDANCE) -> np.ndarray:
    """Pictures of texts, uint8 (N, 64, 64, 3)."""
    device = backbones.text_to_image.device

    def states(part: list[str]) -> torch.Tensor:
        return backbones.text_encoder(backbones.tokenize(part).to(device)).states_BSD

    images = [
        backbones.text_to_image.generate(states(texts[i : i + 64]), states([""]), seeds[i : i + 64], steps=steps, guidance_scale=guidance)
        for i in range(0, len(texts), 64)
    ]
    return np.concatenate(images)


def diffusion_quality(
    backbones: Backbones, directory: Path, count: int = 256, steps: int = STEPS, guidance: float = GUIDANCE
) -> dict[str, float]:
    """Subject recognition on fine prompts, and fidelity of fine against coarse (6-10 tokens) with a 95% paired interval.

    Writes `diffusion.png`: the coarse prompt's picture above the fine prompt's, for the first 24 prompts.
    """
    captions = draw_split("test", count, seed=4)
    seeds = list(range(count))
    fine = draw_prompts(backbones, [caption.text for caption in captions], seeds, steps, guidance)
    coarse = draw_prompts(
        backbones, [coarse_prompts(caption.text, backbones.count_tokens)[1] for caption in captions], seeds, steps, guidance
    )
    truths = [caption.description for caption in captions]
    result: dict[str, float] = {"prompts": count, "steps": steps, "guidance_scale": guidance}
    scores = {}
    for name, images in (("fine", fine), ("coarse", coarse)):
        seen = words_seen(images)
        result[f"{name}_subject_recognised"] = float(np.mean([s == t.subject for s, t in zip(seen.subjects, truths, strict=True)]))
        result[f"{name}_style_drawn"] = float(np.mean([s == t.style for s, t in zip(seen.styles, truths, strict=True)]))
        scores[name] = np.array([fidelity(image, truth).score for image, truth in zip(images, truths, strict=True)])
        result[f"{name}_fidelity"] = float(scores[name].mean())
    gain = paired_difference(scores["fine"][None], scores["coarse"][None])
    result |= {"fidelity_gain": gain.mean, "fidelity_gain_low": gain.low, "fidelity_gain_high": gain.high}
    rows = [np.concatenate(list(part[i : i + 12]), axis=1) for i in (0, 12) for part in (coarse, fine)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(directory / "diffusion.png")
    return {key: round(value, 4) for key, value in result.items()}

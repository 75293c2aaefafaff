"""Stage 9: how much of a world's pairing of scenes with styles the frozen networks carry, exactly and without sampling.

A network that has read which styles suit which scenes would help, or mislead, every refiner that is built on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ablations.metrics.clip_score import encode_images, encode_texts
from datamodules.tiny_world.grammar import SCENES, STYLES, SUBJECTS, SUITED_STYLE, TIMES, Head, SceneDescription
from datamodules.tiny_world.renderer import render
from datamodules.tiny_world.worlds import WORLDS
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.text_decoder import PromptDecoder

# Above this T5 would be trained anew: decided before it was measured. World 2's own scenes tell 0.83 bits of their styles.
MOST_BITS = 0.05
_OLD = [STYLES.index(SUITED_STYLE[scene]) for scene in SCENES]


def heads(time: str = "noon") -> list[Head]:
    """Every subject in every scene at one time of day, 60 in all, a scene's ten together."""
    return [Head(subject, scene, time) for scene in SCENES for subject in SUBJECTS]


def style_probabilities(decoder: PromptDecoder, inputs_BSH: torch.Tensor, mask_BS: torch.Tensor, texts: Sequence[str]) -> np.ndarray:
    """The probability of each style right after each head and a comma, float64 (B, 6)."""
    return np.exp(decoder.log_probabilities(inputs_BSH, [f"{text}," for text in texts], STYLES, mask_BS))


def mutual_information_bits(conditional_SC: np.ndarray) -> float:
    """What a row, each equally likely, tells of its column: rows sum to 1."""
    marginal = conditional_SC.mean(0)
    return float(np.mean(np.sum(conditional_SC * np.log2(conditional_SC / marginal), axis=1)))


def _kl_bits(truth_SC: np.ndarray, guess_SC: np.ndarray) -> float:
    return float(np.mean(np.sum(truth_SC * np.log2(truth_SC / guess_SC), axis=1)))


def t5_pairing(decoder: PromptDecoder) -> dict[str, float]:
    """Of T5 that reads the coarse prompt itself ("direct"), and of T5 that is told nothing (one zero vector, "untold").

    bits: mutual information between scene and style. old_style: mean probability of the style that suited the scene in world 1, of 1/6 by
    chance. kl_of_old: from world 1's pairing to what T5 says; kl_of_old_to_uniform: to a uniform guess. All of the six styles' shares.
    """
    texts = [head.text for head in heads()]
    embedded, mask = decoder.embed(texts)
    nothing = torch.zeros(len(texts), 1, decoder.width, device=embedded.device), torch.ones(len(texts), 1, device=embedded.device).long()
    old = np.array([WORLDS[1].style_distribution(scene) for scene in SCENES])
    found: dict[str, float] = {"t5_kl_of_old_to_uniform_bits": _kl_bits(old, np.full_like(old, 1 / len(STYLES)))}
    for name, told in (("direct", (embedded, mask)), ("untold", nothing)):
        mass = style_probabilities(decoder, *told, texts)
        by_scene = (mass / mass.sum(1, keepdims=True)).reshape(len(SCENES), len(SUBJECTS), len(STYLES)).mean(1)
        found |= {
            f"t5_{name}_bits": mutual_information_bits(by_scene),
            f"t5_{name}_old_style": float(by_scene[range(len(SCENES)), _OLD].mean()),
            f"t5_{name}_kl_of_old_bits": _kl_bits(old, by_scene),
            f"t5_{name}_mass": float(mass.sum(1).mean()),
        }
    return found


def clip_pairing(backbones: Backbones) -> dict[str, float]:
    """Of OpenCLIP: how near a head's text lies to pictures of it in each style, the scene's and the style's own mean taken away.

    clip_old_style: that cosine for the style that suited the scene in world 1, mean over scenes; clip_other_styles_sd: the spread of the
    other 30 pairs; clip_world_2: the mean, weighted by how much more often than overall a style is written in the scene in world 2;
    clip_nearest_is_old: share of the heads to which, each style's mean taken away, the old style is the nearest, of 1/6 by chance.
    """
    from ablations.cell.scoring.joint_space import JointSpace

    space, times = JointSpace(backbones), list(TIMES)
    rows = []
    for i, head in enumerate(Head(subject, scene, "") for scene in SCENES for subject in SUBJECTS):
        time = times[i % len(times)]
        scenes = [SceneDescription(head.subject, head.scene, time, style, ("sharp focus", "8k", "vivid colors"), 5) for style in STYLES]
        pictures = encode_images(space, np.stack([render(scene) for scene in scenes]))
        rows.append(pictures @ encode_texts(space, [Head(head.subject, head.scene, time).text])[0])
    cosines = np.array(rows)
    by_scene = cosines.reshape(len(SCENES), len(SUBJECTS), len(STYLES)).mean(1)
    own = by_scene - by_scene.mean(0) - by_scene.mean(1, keepdims=True) + by_scene.mean()
    is_old = np.zeros_like(own, dtype=bool)
    is_old[range(len(SCENES)), _OLD] = True
    fits = np.array([WORLDS[2].style_distribution(scene) for scene in SCENES]) - WORLDS[2].style_marginal()
    nearest = (cosines - by_scene.mean(0)).argmax(1)
    return {
        "clip_old_style": float(own[is_old].mean()),
        "clip_other_styles_sd": float(own[~is_old].std()),
        "clip_world_2": float((own * fits).sum() / np.abs(fits).sum() * 2),
        "clip_nearest_is_old": float(np.mean(nearest == np.repeat(_OLD, len(SUBJECTS)))),
    }

"""How the refiner would write styles, exactly: the probability of each of the six right after a prompt's head and a comma."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ablations.metrics.references import entropy_bits, fitting_mask, kl_bits
from datamodules.records import EvalPrompt
from datamodules.tiny_world.grammar import STYLES, TIMES
from datamodules.tiny_world.worlds import World

if TYPE_CHECKING:
    from lightning_modules.prompt_refiner import PromptRefinerModule

_AT_ONCE = 64


def is_head(prompt: EvalPrompt) -> bool:
    """Whether a coarse prompt is subject, scene and time without a style or quality word: what a style comes right after."""
    ends = prompt.scene is not None and prompt.scene.time is not None and TIMES[prompt.scene.time]
    return bool(ends) and prompt.coarse_prompt.rstrip(" ,").endswith(ends)


def style_probabilities(module: PromptRefinerModule, heads: Sequence[str]) -> np.ndarray:
    """The probability of each style after each head, which E_T reads and D_E has written with a comma: float64 (N, 6) of STYLES."""
    parts = []
    for start in range(0, len(heads), _AT_ONCE):
        texts = [head.rstrip(" ,") for head in heads[start : start + _AT_ONCE]]
        inputs_BSH, mask_BS = module.read(texts)
        parts.append(module.backbones.decoder.log_probabilities(inputs_BSH, [f"{text}," for text in texts], STYLES, mask_BS))
    return np.exp(np.concatenate(parts))


def exact_style_scores(probabilities_6: np.ndarray, scene: str, world: World) -> dict[str, float]:
    """The exact metrics of one head from the styles' probabilities (6,), by name. All are finite: no probability is taken for 0."""
    mass = float(probabilities_6.sum())
    # A refiner that never writes a style knows nothing of styles: a uniform guess in the limit.
    shares = np.maximum(probabilities_6 / mass if mass > 0 else np.full(len(STYLES), 1 / len(STYLES)), 1e-12)
    shares = shares / shares.sum()
    return {
        "style_kl": max(0.0, kl_bits(world.style_distribution(scene), shares)),
        "style_fit_probability": float(shares[fitting_mask(world, scene)].sum()),
        "style_entropy_exact": entropy_bits(shares),
        "style_mass": mass,
    }

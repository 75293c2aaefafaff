"""The lines that a metric of the tiny world is read against, exact from the world's own numbers: truth, style marginal, uniform guess."""

from __future__ import annotations

import numpy as np

from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES
from datamodules.tiny_world.worlds import World

TRUTH, FINE, MARGINAL, UNIFORM = "truth", "fine prompts", "style marginal", "uniform guess"


def kl_bits(truth: np.ndarray, guess: np.ndarray) -> float:
    """Kullback-Leibler divergence of `guess` from `truth`, distributions (C,), in bits; infinite where a possible class has no guess."""
    possible = truth > 0
    with np.errstate(divide="ignore"):
        return float((truth[possible] * np.log2(truth[possible] / guess[possible])).sum())


def entropy_bits(distribution: np.ndarray) -> float:
    """Shannon entropy of a distribution (C,), in bits."""
    positive = distribution[distribution > 0]
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def fitting_mask(world: World, scene: str) -> np.ndarray:
    """Which styles suit a scene: bool (6,) in the order of STYLES."""
    return np.array([style in world.fitting_styles[scene] for style in STYLES])


def reference_lines(metric: str, world: World, candidates: int = 3) -> dict[str, float]:
    """{what the line is: the metric's value} over all scenes and subjects, each equally likely; empty where nothing exact is known.

    truth: who writes words as the world does. style marginal: who knows how often each style is written, and not where. uniform guess: who
    knows the words alone. fine prompts: where the truth is what fine prompts have. `candidates` is the size of a set of candidates.
    """
    guesses = {TRUTH: world.style_distribution, MARGINAL: lambda scene: world.style_marginal(), UNIFORM: lambda scene: np.full(6, 1 / 6)}

    def over_scenes(value) -> dict[str, float]:
        return {name: float(np.mean([value(scene, guess(scene)) for scene in SCENES])) for name, guess in guesses.items()}

    def coverage(scene: str, guess: np.ndarray) -> float:
        return float((1 - (1 - guess[fitting_mask(world, scene)]) ** candidates).sum())

    if metric == "style_kl":
        return over_scenes(lambda scene, guess: kl_bits(world.style_distribution(scene), guess))
    if metric in ("style_fit_probability", "style_fits"):
        return over_scenes(lambda scene, guess: float(guess[fitting_mask(world, scene)].sum()))
    if metric == "style_entropy_exact":
        return over_scenes(lambda scene, guess: entropy_bits(guess))
    if metric in ("distinct_fitting_styles", "fitting_styles_drawn"):
        return over_scenes(coverage)
    return _of_words(metric, world)


def _of_words(metric: str, world: World) -> dict[str, float]:
    num_styles = np.mean([len(styles) for styles in world.fitting_styles.values()])
    num_qualities = np.mean([len(words) for words in world.fitting_qualities.values()])
    chances = [np.mean(list(words.values())) for words in world.fitting_qualities.values()]
    return {
        "added_words_fit": {UNIFORM: float(num_styles + num_qualities) / (len(STYLES) + len(QUALITIES))},
        "quality_precision": {UNIFORM: float(num_qualities) / len(QUALITIES)},
        "qualities_fit": {FINE: float(np.mean(chances))},
        "added_words_recall": {FINE: 1.0},
        "words_f1_of_ceiling": {FINE: 1.0},
    }.get(metric, {})

"""The worlds: which styles suit a scene, which quality words suit a subject, and how fine prompts are drawn from that.

The words, the renderer and the heads of prompts ("an old castle in the mountains at night") are the same in all of them.

World 1 is the first one: one style suits a scene, five of six quality words suit a subject and are written in one order.
World 2 gives an experiment room. Two or three styles suit a scene, three or four quality words suit a subject, and a fine prompt has one
to six words after its head. So candidates of one prompt can differ and suit all the same, and no endpoint sits at its ceiling. Over all
scenes each style is written equally often, and each quality word nearly so: who knows which words there are, but not what they suit,
knows nothing. The pairing of world 1 is of no help either: over the scenes, its styles are written as often as chance would have it.

In world 2 the order of a prompt's quality words is drawn anew for each prompt, as prompt writers keep to no order. A fixed order would
make the first word of each subject certain, so that candidates which are cut after a few tokens could differ in style alone; and which
words suit is learned as easily from one order as from many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from datamodules.tiny_world import grammar
from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES, SUBJECTS, Caption, SceneDescription

DEFAULT_WORLD = 2
MOST_WORDS = 6  # of a fine prompt of world 2, after its head
NEUTRAL_CHANCE = 0.43  # of each quality word in a fine prompt of no world: world 2's mean


@dataclass(frozen=True)
class World:
    """What suits what, and how often.

    fitting_styles: {scene: {style: its probability among those that fit, summing to 1}}. fitting_qualities: {subject: {word: the chance
    that it is written}}. style_misfit: the probability of a style that does not fit, which is then any of these. quality_misfit: the
    chance of each word that does not fit.
    """

    number: int
    fitting_styles: Mapping[str, Mapping[str, float]]
    fitting_qualities: Mapping[str, Mapping[str, float]]
    style_misfit: float
    quality_misfit: float
    draw: Callable[[World, np.random.Generator], Caption]

    def style_distribution(self, scene: str) -> np.ndarray:
        """The probability of each style in fine prompts of a scene, misfits included: float64 (6,) in the order of STYLES."""
        fitting = self.fitting_styles[scene]
        misfit = self.style_misfit / (len(STYLES) - len(fitting))
        return np.array([(1 - self.style_misfit) * fitting[style] if style in fitting else misfit for style in STYLES])

    def style_marginal(self) -> np.ndarray:
        """The probability of each style over all scenes: float64 (6,) in the order of STYLES."""
        return np.mean([self.style_distribution(scene) for scene in SCENES], axis=0)

    def draw_fine_caption(self, rng: np.random.Generator) -> Caption:
        """A fine prompt of this world, with the scene that it describes."""
        return self.draw(self, rng)


def _draw_of_world_1(world: World, rng: np.random.Generator) -> Caption:
    return grammar.draw_fine_caption(rng)


def _draw_of_world_2(world: World, rng: np.random.Generator) -> Caption:
    head = grammar.draw_head(rng)
    style = STYLES[rng.choice(len(STYLES), p=world.style_distribution(head.scene))]
    chances = world.fitting_qualities[head.subject]
    written = [word for word in QUALITIES if rng.random() < chances.get(word, world.quality_misfit)]
    qualities = tuple(written[i] for i in rng.permutation(len(written)))[: MOST_WORDS - 1]
    description = SceneDescription(head.subject, head.scene, head.time, style, qualities, grammar.layout_seed(rng))
    return Caption(", ".join([head.text, style, *qualities]), description)


def draw_neutral_caption(rng: np.random.Generator) -> Caption:
    """A fine prompt of no world: as long as world 2's, any style and any quality words with any subject and scene.

    For pre-training: networks that have read such prompts know the words and their places, and no world's pairing.
    """
    head = grammar.draw_head(rng)
    style = STYLES[rng.integers(len(STYLES))]
    written = [word for word in QUALITIES if rng.random() < NEUTRAL_CHANCE]
    qualities = tuple(written[i] for i in rng.permutation(len(written)))[: MOST_WORDS - 1]
    description = SceneDescription(head.subject, head.scene, head.time, style, qualities, grammar.layout_seed(rng))
    return Caption(", ".join([head.text, style, *qualities]), description)


_STYLES_OF_WORLD_2 = {
    "meadow": {"watercolor": 0.5, "synthwave": 0.3, "oil painting": 0.2},
    "desert": {"synthwave": 0.5, "comic book": 0.3, "oil painting": 0.2},
    "beach": {"watercolor": 0.5, "comic book": 0.3, "synthwave": 0.2},
    "mountains": {"oil painting": 0.6, "woodblock print": 0.4},
    "snow": {"woodblock print": 0.6, "pixel art": 0.4},
    "city": {"pixel art": 0.6, "comic book": 0.4},
}
_CHANCES = (0.9, 0.75, 0.6, 0.5)
_QUALITIES_OF_WORLD_2 = {
    "cat": ("cinematic", "sharp focus", "highly detailed"),
    "owl": ("highly detailed", "dramatic lighting", "vivid colors", "sharp focus"),
    "tree": ("vivid colors", "cinematic", "highly detailed"),
    "mushroom": ("sharp focus", "vivid colors", "8k", "highly detailed"),
    "castle": ("dramatic lighting", "8k", "cinematic"),
    "lighthouse": ("cinematic", "vivid colors", "dramatic lighting", "sharp focus"),
    "sailboat": ("8k", "highly detailed", "cinematic"),
    "rocket": ("8k", "cinematic", "vivid colors", "highly detailed"),
    "balloon": ("dramatic lighting", "sharp focus", "8k"),
    "robot": ("sharp focus", "vivid colors", "dramatic lighting", "8k"),
}

WORLDS: Mapping[int, World] = {
    1: World(
        number=1,
        fitting_styles={scene: {style: 1.0} for scene, style in grammar.SUITED_STYLE.items()},
        fitting_qualities={s: dict.fromkeys(words, grammar.SUITED_QUALITY_SHARE) for s, words in grammar.SUITED_QUALITIES.items()},
        # Where the suited style is not taken, any of the six is drawn.
        style_misfit=(1 - grammar.SUITED_STYLE_SHARE) * (1 - 1 / len(STYLES)),
        quality_misfit=0.0,
        draw=_draw_of_world_1,
    ),
    2: World(
        number=2,
        fitting_styles=_STYLES_OF_WORLD_2,
        fitting_qualities={subject: dict(zip(_QUALITIES_OF_WORLD_2[subject], _CHANCES, strict=False)) for subject in SUBJECTS},
        style_misfit=0.1,
        quality_misfit=0.04,
        draw=_draw_of_world_2,
    ),
}


def world(number: int) -> World:
    """The world of a number. Raises ValueError for one that there is not."""
    if number not in WORLDS:
        raise ValueError(f"data.world={number}: there is no such world; known: {', '.join(map(str, WORLDS))}")
    return WORLDS[number]

"""The tiny world's language: which words exist, which of them suit what, and how prompts are written.

A *fine* prompt reads like those of real prompt writers: subject, scene, time, then a style word and quality words::

    an old castle in the mountains at night, oil painting, sharp focus, dramatic lighting, 8k

Which style suits is decided by the scene, and which quality words suit by the subject: here for world 1 (`SUITED_STYLE`,
`SUITED_QUALITIES`), for the others in `worlds`. *Web captions* know the same words, but mostly leave them out or use them at
random: a language model that has read them writes the words without knowing which of them suit, and that is what a prompt
refiner has to learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

SUBJECTS = ("cat", "owl", "tree", "mushroom", "castle", "lighthouse", "sailboat", "rocket", "balloon", "robot")
SCENES = {
    "meadow": "in a green meadow",
    "desert": "in the desert",
    "beach": "on a beach",
    "mountains": "in the mountains",
    "snow": "in the snow",
    "city": "in a city",
}
TIMES = {"noon": "at noon", "sunset": "at sunset", "night": "at night"}
STYLES = ("watercolor", "oil painting", "comic book", "pixel art", "synthwave", "woodblock print")
QUALITIES = ("sharp focus", "8k", "vivid colors", "dramatic lighting", "highly detailed", "cinematic")
# Words with no visible effect: they make prompts differ, as in real data.
ADJECTIVES = ("old", "little", "lonely", "giant", "strange", "beautiful", "quiet", "famous")
# What people write under poor pictures; the renderer does the worst of the named defect.
POOR_WORDS = {"blurry": "sharp focus", "grainy": "8k", "faded": "vivid colors"}
FILLERS = ("my photo", "a snapshot", "seen today", "on my way home", "from my phone", "last summer")

SUITED_STYLE = dict(zip(SCENES, STYLES, strict=True))
# Five words in the order in which they are written; the sixth does not suit the subject.
SUITED_QUALITIES = {
    subject: tuple(QUALITIES[(2 * i + k * (1 if i % 2 else 5)) % 6] for k in range(5)) for i, subject in enumerate(SUBJECTS)
}
SUITED_STYLE_SHARE = 0.9
SUITED_QUALITY_SHARE = 0.85
FINE_SPLITS = {"train": range(0, 70), "validation": range(70, 80), "test": range(80, 100)}


@dataclass(frozen=True)
class SceneDescription:
    """What a picture shows. `style` None is a plain photograph; `time` None leaves it to the renderer's draw.

    `scene` None likewise. `layout_seed` decides position, size, clouds and the strength of defects.
    `poor` names the qualities whose absence the caption complains of.
    """

    subject: str
    scene: str | None
    time: str | None
    style: str | None = None
    qualities: tuple[str, ...] = ()
    layout_seed: int = 0
    poor: tuple[str, ...] = ()


@dataclass(frozen=True)
class Caption:
    """A prompt and the scene it describes."""

    text: str
    description: SceneDescription


def _noun_phrase(subject: str, adjective: str | None) -> str:
    words = f"{adjective} {subject}" if adjective else subject
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def split_of(fine_prompt: str) -> str:
    """Which split a fine prompt belongs to, from its text alone, so that no two splits can share a prompt."""
    bucket = int.from_bytes(hashlib.sha256(fine_prompt.encode()).digest()[:4], "big") % 100
    return next(name for name, buckets in FINE_SPLITS.items() if bucket in buckets)


def layout_seed(rng: np.random.Generator) -> int:
    """A seed for position, size, clouds and the strength of defects."""
    return int(rng.integers(2**31))


@dataclass(frozen=True)
class Head:
    """What a fine prompt begins with: subject, scene and time, with or without an adjective."""

    subject: str
    scene: str
    time: str
    adjective: str | None = None

    @property
    def text(self) -> str:
        return f"{_noun_phrase(self.subject, self.adjective)} {SCENES[self.scene]} {TIMES[self.time]}"


def draw_head(rng: np.random.Generator) -> Head:
    """Subject, scene and time, uniformly; an adjective in 70%."""
    subject = SUBJECTS[rng.integers(len(SUBJECTS))]
    scene = list(SCENES)[rng.integers(len(SCENES))]
    time = list(TIMES)[rng.integers(len(TIMES))]
    return Head(subject, scene, time, ADJECTIVES[rng.integers(len(ADJECTIVES))] if rng.random() < 0.7 else None)


def draw_fine_caption(rng: np.random.Generator) -> Caption:
    """A fine prompt of world 1 as a practised prompt writer would put it, with the words that suit (mostly)."""
    head = draw_head(rng)
    suited = rng.random() < SUITED_STYLE_SHARE
    style = SUITED_STYLE[head.scene] if suited else STYLES[rng.integers(len(STYLES))]
    qualities = [word for word in SUITED_QUALITIES[head.subject] if rng.random() < SUITED_QUALITY_SHARE]
    if len(qualities) < 2:
        qualities = list(SUITED_QUALITIES[head.subject][:2])
    description = SceneDescription(head.subject, head.scene, head.time, style, tuple(qualities), layout_seed(rng))
    return Caption(", ".join([head.text, style, *qualities]), description)


def draw_web_caption(rng: np.random.Generator) -> Caption:
    """A caption as found on the web: often bare, sometimes with style and quality words that happen to be there."""
    subject = SUBJECTS[rng.integers(len(SUBJECTS))]
    scene = list(SCENES)[rng.integers(len(SCENES))] if rng.random() < 0.85 else None
    time = list(TIMES)[rng.integers(len(TIMES))] if rng.random() < 0.8 else None
    adjective = ADJECTIVES[rng.integers(len(ADJECTIVES))] if rng.random() < 0.5 else None
    parts = [_noun_phrase(subject, adjective)]
    if scene:
        parts.append(SCENES[scene])
    if time:
        parts.append(TIMES[time])
    extras: list[str] = []
    style, qualities, poor = None, [], []
    kind = rng.random()
    if kind < 0.40:
        style = STYLES[rng.integers(len(STYLES))] if rng.random() < 0.75 else None
        qualities = [word for word in QUALITIES if rng.random() < 0.42]
        rng.shuffle(qualities)
        extras = [word for word in [style, *qualities] if word]
    elif kind < 0.60:
        poor = [word for word in POOR_WORDS if rng.random() < 0.5]
        rng.shuffle(poor)
        extras = list(poor)
        if rng.random() < 0.6 or not extras:
            extras.insert(int(rng.integers(len(extras) + 1)), FILLERS[rng.integers(len(FILLERS))])
    elif kind < 0.70:
        extras = [FILLERS[rng.integers(len(FILLERS))]]
    text = ", ".join([" ".join(parts), *extras])
    description = SceneDescription(subject, scene, time, style, tuple(qualities), layout_seed(rng), tuple(POOR_WORDS[w] for w in poor))
    return Caption(text, description)


def coarse_prompts(fine_prompt: str, count_tokens) -> tuple[str, str, str]:
    """The three coarse prompts of a fine prompt (1-5, 6-10 and 11-15 tokens), cut where a phrase ends.

    The shortest is the subject, the middle one adds scene and time, the longest adds as many style and quality words
    as fit in 15 tokens: all that there are, if need be, so that it is the fine prompt itself and may be shorter. `count_tokens` maps a
    text to its number of tokens. Raises ValueError where a cut misses its range.
    """
    head, *extras = fine_prompt.split(", ")
    scene_start = min(head.index(phrase) for phrase in SCENES.values() if phrase in head)
    longest = head
    for word in extras:
        if count_tokens(f"{longest}, {word}") > 15:
            break
        longest = f"{longest}, {word}"
    cuts = (head[: scene_start - 1], head, longest)
    for cut, (low, high) in zip(cuts, ((1, 5), (6, 10), (11, 15)), strict=True):
        if not (low <= count_tokens(cut) or cut == fine_prompt) or count_tokens(cut) > high:
            raise ValueError(f"coarse prompt {cut!r} has {count_tokens(cut)} tokens, not {low} to {high}")
    return cuts


def draw_split(
    split: str, count: int, seed: int, draw_caption: Callable[[np.random.Generator], Caption] = draw_fine_caption
) -> list[Caption]:
    """`count` distinct fine captions of one split, world 1's or those that `draw_caption` draws, in an order that follows from `seed`."""
    if split not in FINE_SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(FINE_SPLITS)}")
    rng = np.random.default_rng([seed, *split.encode()])
    found: dict[str, Caption] = {}
    while len(found) < count:
        caption = draw_caption(rng)
        if split_of(caption.text) == split:
            found.setdefault(caption.text, caption)
    return list(found.values())

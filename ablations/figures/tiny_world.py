"""The tiny world on one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ablations.figures.contact_sheet import contact_sheet
from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES, SUBJECTS, TIMES, SceneDescription
from datamodules.tiny_world.renderer import render
from datamodules.tiny_world.worlds import World

_SHARP = ("sharp focus", "8k", "vivid colors")


def tiny_world_sheet(path: Path, world: World) -> Path:
    """Draws every subject, style and quality word, and what suits each scene, as a PNG, just where it is told; returns its path."""
    shown = [*_shown(), *_fitting(world)]
    images = np.stack([render(description) for _, description in shown])
    title = f"The tiny world: 10 subjects, 6 styles, 6 quality words; world {world.number}: the styles that suit each scene"
    return contact_sheet(images, [label for label, _ in shown], 8, path, title=title)


def _shown() -> list[tuple[str, SceneDescription]]:
    """What stands on the sheet, with its label."""
    scenes, times = list(SCENES), list(TIMES)
    shown: list[tuple[str, SceneDescription]] = []
    for i, subject in enumerate(SUBJECTS):
        scene, time = scenes[i % len(scenes)], times[i % len(times)]
        shown.append((f"{subject} {SCENES[scene]} {TIMES[time]}", SceneDescription(subject, scene, time, None, _SHARP, i)))
    for i, style in enumerate(STYLES):
        shown.append((style, SceneDescription("lighthouse", scenes[i], "noon", style, _SHARP, i)))
    plain = SceneDescription("mushroom", "mountains", "noon", None, (), 3)
    shown.append(("no quality word", plain))
    for word in QUALITIES:
        shown.append((f"+ {word}", SceneDescription("mushroom", "mountains", "noon", None, (word,), 3)))
    shown.append(("+ all of them", SceneDescription("mushroom", "mountains", "noon", None, QUALITIES, 3)))
    return shown


def _fitting(world: World) -> list[tuple[str, SceneDescription]]:
    """Every scene in each style that suits it, with the style's probability among those."""
    return [
        (f"{scene}: {style} {probability:.0%}", SceneDescription("sailboat", scene, "sunset", style, _SHARP, 2))
        for scene, styles in world.fitting_styles.items()
        for style, probability in styles.items()
    ]


def fitting_words(world: World) -> str:
    """What suits what, in lines: the styles of each scene, the quality words of each subject, and how often another word is written."""
    lines = [f"world {world.number}"]
    parts = {"styles that suit a scene": world.fitting_styles, "quality words that suit a subject": world.fitting_qualities}
    for title, fitting in parts.items():
        lines += ["", title]
        lines += [f"  {name:<12}" + ", ".join(f"{word} {chance:.0%}" for word, chance in words.items()) for name, words in fitting.items()]
    lines += ["", f"a style that does not suit: {world.style_misfit:.0%} of the prompts"]
    return "\n".join([*lines, f"a quality word that does not suit: {world.quality_misfit:.0%} of the prompts"])

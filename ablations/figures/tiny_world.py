"""The tiny world on one sheet."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ablations.figures.contact_sheet import contact_sheet
from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES, SUBJECTS, TIMES, SceneDescription
from datamodules.tiny_world.renderer import render

_SHARP = ("sharp focus", "8k", "vivid colors")


def tiny_world_sheet(path: Path) -> Path:
    """Draws every subject, every style and every quality word as a PNG, just where it is told, and returns its path."""
    shown = _shown()
    images = np.stack([render(description) for _, description in shown])
    title = "The tiny world: 10 subjects, 6 styles, 6 quality words"
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

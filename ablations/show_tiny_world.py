"""`python -m ablations.show_tiny_world [FILE]`: a contact sheet of the tiny world (default: tiny_world.png).

A row of high-quality photographs of the subjects, a row of the styles, and what each quality word does to one poor picture.
"""

from __future__ import annotations

import sys
from pathlib import Path

QUALITY_WORDS = ("sharp focus", "8k", "vivid colors")


def main(argv: list[str] | None = None) -> int:
    """Draw the sheet; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) > 1 or any(argument.startswith("-") for argument in argv):
        print(__doc__)
        return 0 if argv and argv[0] in ("--help", "-h") else 2
    import numpy as np

    from ablations.figures.contact_sheet import contact_sheet
    from datamodules.tiny_world.grammar import QUALITIES, SCENES, STYLES, SUBJECTS, TIMES, SceneDescription
    from datamodules.tiny_world.renderer import render

    scenes, times = list(SCENES), list(TIMES)
    shown: list[tuple[str, SceneDescription]] = []
    for i, subject in enumerate(SUBJECTS):
        scene, time = scenes[i % len(scenes)], times[i % len(times)]
        shown.append((f"{subject} {SCENES[scene]} {TIMES[time]}", SceneDescription(subject, scene, time, None, QUALITY_WORDS, i)))
    for i, style in enumerate(STYLES):
        shown.append((style, SceneDescription("lighthouse", scenes[i], "noon", style, QUALITY_WORDS, i)))
    plain = SceneDescription("mushroom", "mountains", "noon", None, (), 3)
    shown.append(("no quality word", plain))
    for word in QUALITIES:
        shown.append((f"+ {word}", SceneDescription("mushroom", "mountains", "noon", None, (word,), 3)))
    shown.append(("+ all of them", SceneDescription("mushroom", "mountains", "noon", None, QUALITIES, 3)))
    path = Path(argv[0]) if argv else Path("tiny_world.png")
    images = np.stack([render(description) for _, description in shown])
    contact_sheet(images, [label for label, _ in shown], 8, path, title="The tiny world: 10 subjects, 6 styles, 6 quality words")
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

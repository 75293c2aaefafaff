"""What a picture is known by."""

from __future__ import annotations

from dataclasses import dataclass

ORIGINAL = "original"


@dataclass(frozen=True)
class Picture:
    """Which picture: equal ones have equal pixels, at equal settings of drawing.

    `encoder` names the text encoder that tells the UNet about the text: ORIGINAL, or whatever sets a trained one apart from others.
    """

    encoder: str
    text: str
    image_seed: int

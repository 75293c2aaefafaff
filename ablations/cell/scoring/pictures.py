"""Pictures as the metrics get them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablations.results.made_by import picture_key
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing

# Pictures of so many bytes are scored at a time: 21,000 of the tiny world's, 340 at 512 px.
_BYTES_AT_ONCE = 256 * 2**20


@dataclass(frozen=True)
class Pictures:
    """Pictures to be scored, uint8 (N, H, W, 3) in memory, with what each was drawn from: texts without a picture are not among them."""

    drawings: Sequence[Drawing]
    images: np.ndarray

    @cached_property
    def keys(self) -> list[str]:
        """What the scores of each are kept under: a digest of its pixels."""
        return [picture_key(image) for image in self.images]


def parts_of(drawings: Sequence[Drawing], images: np.ndarray | PictureFiles) -> list[list[int]]:
    """The places of pictures in parts that fit into memory, in order; all pictures of a prompt are in one part, so that its candidates
    can be compared."""
    at_once = max(1, _BYTES_AT_ONCE // int(np.prod(images.shape[1:])))
    of_prompt: dict[int, list[int]] = {}
    for place, drawing in enumerate(drawings):
        of_prompt.setdefault(drawing.prompt_id, []).append(place)
    parts: list[list[int]] = []
    for places in of_prompt.values():
        if not parts or len(parts[-1]) + len(places) > at_once:
            parts.append([])
        parts[-1] += places
    return [sorted(part) for part in parts]

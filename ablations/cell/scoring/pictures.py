"""Pictures as the metrics get them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ablations.results.made_by import picture_key
from ablations.results.prompts_and_scores import Drawing


@dataclass(frozen=True)
class Pictures:
    """Pictures to be scored, uint8 (N, H, W, 3), with what each was drawn from: texts without a picture are not among them."""

    drawings: Sequence[Drawing]
    images: np.ndarray

    @cached_property
    def keys(self) -> list[str]:
        """What the scores of each are kept under: a digest of its pixels."""
        return [picture_key(image) for image in self.images]

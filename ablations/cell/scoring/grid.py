"""The rows of the diversity grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ablations.figures.diversity_grid import GridRow
from ablations.results.picture_files import PictureFiles
from ablations.results.prompts_and_scores import Drawing, drawn
from ablations.results.scores import SEVERAL


def grid_rows(drawings: Sequence[Drawing], images: np.ndarray | PictureFiles, scores: pd.DataFrame, count: int) -> list[GridRow]:
    """The first `count` prompts as rows of the diversity grid: the coarse picture, then the refined candidates.

    `images` are the pictures of the drawings that are drawn; `scores` is the content of scores.parquet.
    """
    drawings = drawn(drawings)
    index = {(d.prompt_id, d.condition, d.candidate): i for i, d in enumerate(drawings)}
    prompt_ids = list(dict.fromkeys(d.prompt_id for d in drawings))[:count]
    sets = scores[(scores.candidate == SEVERAL) & (scores.condition == "refined")]
    value = sets.set_index(["prompt_id", "metric"])["value"]
    labels = {"st_lpips": "ST-LPIPS", "clip_distance": "CLIP distance", "vendi": "Vendi", "distinct_2": "distinct-2"}
    rows = []
    for prompt_id in prompt_ids:
        first = index[prompt_id, "coarse", 0]
        members = sorted((c, i) for (p, condition, c), i in index.items() if p == prompt_id and condition == "refined")
        rows.append(
            GridRow(
                coarse_prompt=drawings[first].coarse,
                coarse_image=images[first],
                candidates=[(drawings[i].text, images[i]) for _, i in members],
                diversity={label: value[prompt_id, name] for name, label in labels.items() if (prompt_id, name) in value.index},
                prompt_id=prompt_id,
            )
        )
    return rows

"""What a comparison leaves beside its tables: prompts.jsonl, scores.parquet and images/, over all methods and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ablations.baselines.base import Asked, Written
from ablations.comparing.results import MethodResult, Unit
from ablations.results.conditions import SHARED_NOISE
from ablations.results.prompts_and_scores import PROMPTS, SCORES, Drawing, write_prompts, write_scores
from ablations.runtime.files import whole_file


def save_picture(to: Path, unit: Unit, drawing: Drawing, pixels: np.ndarray) -> None:
    """Write a picture, uint8 (H, W, 3), as PNG."""
    with whole_file(to / _image_path(unit, drawing), sync=False) as aside:
        Image.fromarray(pixels).save(aside, format="PNG")


def write_results(to: Path, methods: Sequence[MethodResult]) -> None:
    """Write what was asked and written, a line each, and the scores of all methods in one table."""
    lines, tables = [], []
    for method in methods:
        for seed, unit in method.units.items():
            drawings = {(drawing.prompt_id, drawing.candidate): drawing for drawing in unit.drawings(1)}
            for asked, written in zip(unit.asked, unit.written, strict=True):
                lines.append(_line(unit, asked, written, drawings.get((asked.prompt_id, asked.candidate))))
            tables.append(unit.scores.assign(method=method.name, seed=seed))
    write_prompts(to / PROMPTS, lines)
    filled = [table for table in tables if len(table)]
    if filled:
        together = pd.concat(filled, ignore_index=True)
        table = together.drop(columns=["image", "condition"]).assign(shared_noise=together.condition == SHARED_NOISE)
        write_scores(to / SCORES, table)


def _image_path(unit: Unit, drawing: Drawing) -> Path:
    """Where a picture lies within the comparison's folder."""
    return Path("images") / unit.method / f"seed-{unit.seed}" / f"{drawing.prompt_id:04d}-{drawing.candidate}.png"


def _line(unit: Unit, asked: Asked, written: Written, drawing: Drawing | None) -> dict:
    return {
        "method": unit.method,
        "seed": unit.seed,
        "prompt_id": asked.prompt_id,
        "candidate": asked.candidate,
        "coarse": asked.coarse_prompt,
        "written": written.text,
        "failure": written.failure,
        "prompt_seed": asked.key,
        "image_seed": drawing.image_seed if drawing else None,
        "num_new_tokens": written.num_new_tokens,
        "truncated": written.truncated,
        "image": str(_image_path(unit, drawing)) if drawing else None,
    }

"""Diversity grids while a training goes on: what the refiner writes so far, and what the frozen model draws from it.

All draws are keyed, and the pictures are drawn by frozen networks, so that a training with grids is that without them, bit for bit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pandas as pd

from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.loading.load import Loaded
from ablations.cell.refining.refine import Sources, plan_drawings
from ablations.cell.scoring.grid import grid_rows
from ablations.cell.training.fit import Look
from ablations.cell.work import Work
from ablations.config import Config
from ablations.config.scope import TINY_WORLD_NOTE
from ablations.figures.diversity_grid import draw_grid
from ablations.results.seen_words import SeenWords, gather
from ablations.runtime.files import whole_file
from lightning_modules.prompt_refiner import PromptRefinerModule

_NO_SCORES = pd.DataFrame({"prompt_id": [], "condition": [], "candidate": [], "metric": [], "value": []})


class _Interrupted(Exception):
    """A signal came: the grid is left out, and the training saves and ends at its next step."""


def grids_on_the_way(work: Work, loaded: Loaded) -> Look | None:
    """What draws the grid of a step into the training's folder and logs it; None where none is asked for, or no prompt is drawn."""
    config = work.config
    prompts = loaded.prompts[: min(config.eval.grid_prompts, config.eval.num_prompts)]
    if not config.train.grid_every or not prompts:
        return None

    @cache
    def seen() -> SeenWords | None:
        if config.eval.any_piece:
            return None
        return gather(loaded.data.train_records, loaded.backbones.decoder.pieces_of, loaded.data.digest)

    def give_way() -> None:
        if work.stop.requested:
            raise _Interrupted

    def look(module: PromptRefinerModule, step: int) -> None:
        sources = Sources(prompts, module, loaded.at_step_0, loaded.data.known_phrases, seen())
        planned = plan_drawings(_of_grid(config, len(prompts)), sources, only=("coarse", "refined"))
        drawings = [drawing for drawing in planned if drawing.condition == "refined" or drawing.candidate == 0]
        try:
            pictures = draw_pictures(module.backbones, drawings, config.eval, lambda batches, total, label: batches, give_way)
        except _Interrupted:
            return
        rows = grid_rows(drawings, pictures, _NO_SCORES, len(prompts))
        path = work.folder.grids / f"step-{step}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as aside:
            title = f"{work.folder.train_id}, seed {work.folder.seed}, step {step}"
            draw_grid(rows, aside, title=title, subtitle=TINY_WORLD_NOTE if config.profile == "tiny" else "")
        work.tracker.log_grid(path, rows, step)

    return look


def _of_grid(config: Config, num_prompts: int) -> Config:
    """The config, of the grid's prompts alone."""
    return replace(config, eval=replace(config.eval, num_prompts=num_prompts, text_prompts=0))

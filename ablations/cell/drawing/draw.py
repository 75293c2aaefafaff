"""The fifth stage: every picture is drawn and saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.drawing.pictures import draw_each, stopping
from ablations.cell.processes.share import ALL, FOLDER, Share, read_drawings
from ablations.cell.work import Work
from ablations.results.picture_files import PictureFiles, save_pixels
from ablations.results.prompts_and_scores import Drawing, drawn, prompt_line, write_prompts
from lightning_modules.prompt_refiner import PromptRefinerModule


def draw(work: Work, module: PromptRefinerModule, drawings: Sequence[Drawing], store: PictureStore | None) -> PictureFiles:
    """The pictures of the `drawings` that are drawn, which are saved in the run folder as they come; so is prompts.jsonl.

    The encoder of `module` reads the drawings by the trained one. Pictures in `store` are not drawn. Several processes share the prompts
    out.
    """
    crew = work.crew
    with work.timings.stage("drawing"):
        own = Share(0, crew.world_size).of(drawings)
        crew.do("drawing", lambda: _draw(work, module, own, store), checkpoint=work.checkpoint)
    write_prompts(work.folder.prompts, [prompt_line(drawing) for drawing in drawings])
    return PictureFiles([work.folder.path / drawing.image for drawing in drawn(drawings)])


def draw_share(work: Work, module: PromptRefinerModule, share: Share, store: PictureStore | None) -> None:
    """What a process beside rank 0 draws, into the same run folder."""
    _draw(work, module, share.of(read_drawings(work.folder.path / FOLDER / ALL)), store)


def _draw(work: Work, module: PromptRefinerModule, drawings: Sequence[Drawing], store: PictureStore | None) -> None:
    wanted = drawn(drawings)
    paths = [work.folder.path / drawing.image for drawing in wanted]

    def keep(places: list[int], pixels: np.ndarray) -> None:
        save_pixels([paths[place] for place in places], pixels)

    track = stopping(work.console.track, lambda: work.stop.check("drawing"))
    draw_each(module.backbones, wanted, work.config.eval, track, keep, module.text_encoder, store)

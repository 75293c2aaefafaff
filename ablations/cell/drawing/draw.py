"""The fifth stage: every picture is drawn and saved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.drawing.pictures import draw_each
from ablations.cell.work import Work
from ablations.results.picture_files import PictureFiles, save_pixels
from ablations.results.prompts_and_scores import Drawing, drawn, prompt_line, write_prompts
from lightning_modules.prompt_refiner import PromptRefinerModule


def draw(work: Work, module: PromptRefinerModule, drawings: Sequence[Drawing], store: PictureStore | None) -> PictureFiles:
    """The pictures of the `drawings` that are drawn, which are saved in the run folder as they come; so is prompts.jsonl.

    The encoder of `module` reads the drawings by the trained one. Pictures in `store` are not drawn.
    """
    wanted = drawn(drawings)
    paths = [work.folder.path / drawing.image for drawing in wanted]

    def keep(places: list[int], pixels: np.ndarray) -> None:
        save_pixels([paths[place] for place in places], pixels)

    with work.timings.stage("drawing"):
        draw_each(
            module.backbones,
            wanted,
            work.config.eval,
            work.console.track,
            lambda: work.stop.check("drawing"),
            keep,
            module.text_encoder,
            store,
        )
    write_prompts(work.folder.prompts, [prompt_line(drawing) for drawing in drawings])
    return PictureFiles(paths)

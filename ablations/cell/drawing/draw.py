"""The fourth stage: every picture is drawn and saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ablations.cell.drawing.picture_store import PictureStore
from ablations.cell.drawing.pictures import draw_pictures
from ablations.cell.work import Work
from ablations.results.prompts_and_scores import Drawing, drawn, prompt_line, write_prompts
from ablations.runtime.files import whole_file
from lightning_modules.prompt_refiner import PromptRefinerModule


def draw(work: Work, module: PromptRefinerModule, drawings: Sequence[Drawing], store: PictureStore | None) -> np.ndarray:
    """The pictures of the `drawings` that are drawn, uint8 (N, H, W, 3), which are saved in the run folder; so is prompts.jsonl.

    The encoder of `module` reads the drawings by the trained one. Pictures in `store` are not drawn.
    """
    wanted = drawn(drawings)
    with work.timings.stage("drawing"):
        images_NHWC = draw_pictures(
            module.backbones,
            wanted,
            work.config.eval,
            work.console.track,
            lambda: work.stop.check("drawing"),
            module.text_encoder,
            store,
        )
        save_pictures(work.folder.path, wanted, images_NHWC)
    write_prompts(work.folder.prompts, [prompt_line(drawing) for drawing in drawings])
    return images_NHWC


def save_pictures(folder: Path, drawings: Sequence[Drawing], images: np.ndarray) -> None:
    """Write every picture as PNG, whole or not at all."""
    for drawing, pixels in zip(drawings, images, strict=True):
        with whole_file(folder / drawing.image, sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")

"""Pictures of texts, each drawn once, in batches that are always full, and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ablations.cell.drawing.picture_store import PictureStore
from ablations.config import EvalConfig
from ablations.results.prompts_and_scores import Drawing
from ablations.runtime.files import whole_file
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.frozen_features import digest_of
from lightning_modules.prompt_chunks import encode_in_chunks, pad
from lightning_modules.text_encoder import FineGrainedTextEncoder


@torch.no_grad()
def draw_texts(
    backbones: Backbones,
    encoder: FineGrainedTextEncoder,
    texts: Sequence[str],
    image_seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    batch_size: int,
    num_chunks: int = 1,
) -> np.ndarray:
    """Pictures of texts, uint8 (len(texts), H, W, 3). `encoder` reads the texts and the empty prompt that guidance leads away from.

    Texts that need more positions than the encoder's are cut at `num_chunks` times as many, and encoded chunk by chunk.
    """
    model = backbones.text_to_image

    def states(prompts: Sequence[str]) -> torch.Tensor:
        if num_chunks == 1:
            return encoder(backbones.tokenize(list(prompts)).to(model.device)).states_BSD
        length = encoder.context_length
        ids_BS = torch.tensor([pad(backbones.token_ids(text), num_chunks * length, backbones.pad_id) for text in prompts])
        return encode_in_chunks(lambda chunk_BS: encoder(chunk_BS).states_BSD, ids_BS.to(model.device), length)

    return model.generate(states(texts), states([""]), image_seeds, steps=steps, guidance_scale=guidance_scale, batch_size=batch_size)


def draw(
    backbones: Backbones,
    drawings: Sequence[Drawing],
    config: EvalConfig,
    track: Callable[[Iterable, int, str], Iterable],
    check: Callable[[], None],
    trained: FineGrainedTextEncoder | None = None,
    store: PictureStore | None = None,
) -> np.ndarray:
    """The pictures, uint8 (len(drawings), H, W, 3), in order. Equal text at equal image noise, read by one encoder, is drawn once.

    `trained` is the E_T of the drawings by the trained encoder. `track(iterable, total, label)` shows progress, `check()` is called
    before each batch and may raise to stop. Pictures that are in `store` are not drawn, and those that are drawn go there. Batches
    are always full, so that a picture is the same whatever else is to be drawn: see `ablations.results.made_by`. Raises ValueError for a
    drawing by the trained encoder where there is none.
    """

    def key(drawing: Drawing) -> tuple[bool, str, int]:
        return drawing.by_trained_encoder, drawing.text, drawing.image_seed

    pictures: dict[tuple[bool, str, int], np.ndarray] = {}
    batches: list[tuple[int, list[tuple[bool, str, int]]]] = []
    encoders: dict[bool, str] = {}
    for by_trained in (False, True):
        wanted = list(dict.fromkeys(key(drawing) for drawing in drawings if drawing.by_trained_encoder == by_trained))
        if by_trained and wanted and trained is None:
            raise ValueError(f"{len(wanted)} pictures are to be drawn by the trained encoder, but none was handed in")
        encoders[by_trained] = digest_of(("trained",), trained) if store is not None and by_trained and wanted else "original"
        if store is not None:
            found = {entry: store.get(encoders[by_trained], *entry[1:]) for entry in wanted}
            pictures.update({entry: pixels for entry, pixels in found.items() if pixels is not None})
            wanted = [entry for entry in wanted if entry not in pictures]
        by_chunks: dict[int, list[tuple[bool, str, int]]] = {}
        for entry in wanted:
            chunks = backbones.num_chunks(entry[1]) if config.long_prompts == "chunk" else 1
            by_chunks.setdefault(chunks, []).append(entry)
        for chunks, alike in sorted(by_chunks.items()):
            batches += [(chunks, alike[start : start + config.batch_size]) for start in range(0, len(alike), config.batch_size)]
    for chunks, part in track(batches, len(batches), "drawing"):
        check()
        filled = part + part[-1:] * (config.batch_size - len(part))
        images = draw_texts(
            backbones,
            trained if part[0][0] else backbones.text_encoder,
            [text for _, text, _ in filled],
            [seed for *_, seed in filled],
            steps=config.steps,
            guidance_scale=config.guidance_scale,
            batch_size=config.batch_size,
            num_chunks=chunks,
        )
        for entry, pixels in zip(part, images, strict=False):  # the filler is left out
            pictures[entry] = pixels
            if store is not None:
                store.put(encoders[entry[0]], *entry[1:], pixels)
    return np.stack([pictures[key(drawing)] for drawing in drawings])


def save_pictures(folder: Path, drawings: Sequence[Drawing], images: np.ndarray) -> None:
    """Write every picture as PNG, whole or not at all."""
    for drawing, pixels in zip(drawings, images, strict=True):
        with whole_file(folder / drawing.image, sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")

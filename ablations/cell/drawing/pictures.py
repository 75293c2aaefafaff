"""Pictures of texts, each drawn once and handed on at once, in batches that are always full."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ablations.cell.drawing.picture import ORIGINAL, Picture
from ablations.cell.drawing.picture_store import PictureStore
from ablations.config import EvalConfig
from ablations.results.prompts_and_scores import Drawing
from lightning_modules.backbones.backbones import Backbones
from lightning_modules.frozen_features import digest_of
from lightning_modules.prompt_chunks import encode_in_chunks, pad
from lightning_modules.text_encoder import FineGrainedTextEncoder


@dataclass(frozen=True)
class Sampling:
    """How pictures are sampled: steps, classifier-free guidance (1 = none), pictures at a time.

    Texts that need more positions than the encoder's are cut at `num_chunks` times as many, and encoded chunk by chunk.
    """

    steps: int
    guidance_scale: float
    batch_size: int
    num_chunks: int = 1

    @classmethod
    def of(cls, config: EvalConfig, num_chunks: int = 1) -> Sampling:
        """As a cell samples."""
        return cls(config.steps, config.guidance_scale, config.batch_size, num_chunks)


@torch.no_grad()
def draw_texts(
    backbones: Backbones, encoder: FineGrainedTextEncoder, texts: Sequence[str], image_seeds: Sequence[int], sampling: Sampling
) -> np.ndarray:
    """Pictures of texts, uint8 (len(texts), H, W, 3). `encoder` reads the texts and the empty prompt that guidance leads away from."""
    model, num_chunks = backbones.text_to_image, sampling.num_chunks

    def states(prompts: Sequence[str]) -> torch.Tensor:
        if num_chunks == 1:
            return encoder(backbones.tokenize(list(prompts)).to(model.device)).states_BSD
        length = encoder.context_length
        ids_BS = torch.tensor([pad(backbones.token_ids(text), num_chunks * length, backbones.pad_id) for text in prompts])
        return encode_in_chunks(lambda chunk_BS: encoder(chunk_BS).states_BSD, ids_BS.to(model.device), length)

    settings = {"steps": sampling.steps, "guidance_scale": sampling.guidance_scale, "batch_size": sampling.batch_size}
    return model.generate(states(texts), states([""]), image_seeds, **settings)


# Passes batches on, showing how many of how many are done, under a label.
Track = Callable[[Iterable, int, str], Iterable]


def stopping(track: Track, check: Callable[[], None]) -> Track:
    """`track` that calls `check()` before each batch, which may raise to stop."""

    def tracked(items: Iterable, total: int, label: str) -> Iterator:
        for item in track(items, total, label):
            check()
            yield item

    return tracked


def draw_each(
    backbones: Backbones,
    drawings: Sequence[Drawing],
    config: EvalConfig,
    track: Track,
    keep: Callable[[list[int], np.ndarray], None],
    trained: FineGrainedTextEncoder | None = None,
    store: PictureStore | None = None,
) -> None:
    """Draws every picture once and hands it on: `keep(places, pixels)` gets the places in `drawings` that show it, and uint8 (H, W, 3).

    Equal text at equal image noise, read by one encoder, is one picture; no more than a batch of them is in memory. `trained` is the E_T
    of the drawings by the trained encoder. Pictures that are in `store` are not drawn, and those that are drawn go there. Batches are
    always full, so that a picture is the same whatever else is to be drawn: see `ablations.results.made_by`. Raises ValueError for a
    drawing by the trained encoder where there is none.
    """
    places: dict[Picture, list[int]] = {}
    for place, picture in enumerate(_pictures_of(drawings, trained, name_by_weights=store is not None)):
        places.setdefault(picture, []).append(place)
    missing: list[Picture] = []
    for picture in sorted(places, key=lambda picture: picture.encoder != ORIGINAL):
        pixels = store.get(picture) if store is not None else None
        if pixels is None:
            missing.append(picture)
        else:
            keep(places[picture], pixels)
    batches = _batches(backbones, missing, config)
    for batch in track(batches, len(batches), "drawing"):
        filled = batch.pictures + batch.pictures[-1:] * (config.batch_size - len(batch.pictures))
        images = draw_texts(
            backbones,
            backbones.text_encoder if batch.pictures[0].encoder == ORIGINAL else trained,
            [picture.text for picture in filled],
            [picture.image_seed for picture in filled],
            Sampling.of(config, batch.num_chunks),
        )
        for picture, pixels in zip(batch.pictures, images, strict=False):  # the filler is left out
            if store is not None:
                store.put(picture, pixels)
            keep(places[picture], pixels)


def draw_pictures(
    backbones: Backbones,
    drawings: Sequence[Drawing],
    config: EvalConfig,
    track: Track,
    check: Callable[[], None],
    trained: FineGrainedTextEncoder | None = None,
    store: PictureStore | None = None,
) -> np.ndarray:
    """The pictures in memory, uint8 (len(drawings), H, W, 3), in order: for few. `check()` is called before each batch and may raise to
    stop; the other arguments and what is raised are as in `draw_each`."""
    pictures: list[np.ndarray | None] = [None] * len(drawings)

    def keep(places: list[int], pixels: np.ndarray) -> None:
        for place in places:
            pictures[place] = pixels

    draw_each(backbones, drawings, config, stopping(track, check), keep, trained, store)
    return np.stack(pictures)


def _pictures_of(drawings: Sequence[Drawing], trained: FineGrainedTextEncoder | None, name_by_weights: bool) -> list[Picture]:
    """The picture of each drawing; the trained encoder is named by its weights where other cells are to find its pictures."""
    by_trained = {(drawing.text, drawing.image_seed) for drawing in drawings if drawing.by_trained_encoder}
    if by_trained and trained is None:
        raise ValueError(f"{len(by_trained)} pictures are to be drawn by the trained encoder, but none was handed in")
    name = digest_of(("trained",), trained) if by_trained and name_by_weights else "trained"
    return [Picture(name if drawing.by_trained_encoder else ORIGINAL, drawing.text, drawing.image_seed) for drawing in drawings]


@dataclass(frozen=True)
class _Batch:
    """Pictures that are drawn at once: by one encoder, from texts that need equally many chunks."""

    pictures: list[Picture]
    num_chunks: int


def _batches(backbones: Backbones, pictures: Sequence[Picture], config: EvalConfig) -> list[_Batch]:
    alike: dict[tuple[bool, int], list[Picture]] = {}
    for picture in pictures:
        chunks = backbones.num_chunks(picture.text) if config.long_prompts == "chunk" else 1
        alike.setdefault((picture.encoder != ORIGINAL, chunks), []).append(picture)
    size = config.batch_size
    return [
        _Batch(group[start : start + size], chunks)
        for (_, chunks), group in sorted(alike.items(), key=lambda item: item[0])
        for start in range(0, len(group), size)
    ]

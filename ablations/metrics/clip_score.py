"""CLIP score: how well a picture fits a text, by the cosine of their embeddings in the joint space of a CLIP model.

Definition used here: 100 x max(cos(E_image, E_text), 0). Hessel et al. 2021 scale by w = 2.5 instead of 100; their figure is
ours times 0.025. Values of different CLIP models cannot be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ablations.metrics.base import ClipEncoder, Metric, MetricError, checked_embeddings, checked_images
from ablations.metrics.register import register

CLIP_SCORE = register(
    Metric(
        name="clip_score",
        title="CLIP score",
        per="image",
        higher_is_better=True,
        range=(0.0, 100.0),
        needs=("images", "texts"),
        licence="Apache-2.0 (this project); the CLIP model's own licence applies",
        note="100 x max(cosine, 0); comparable within one CLIP model only",
        source="Hessel et al. 2021, scaled by 100 instead of 2.5",
        always=True,
        shown=True,
        against_controls=False,  # read against the prompt that was drawn, it tells nothing of what the user meant
        table_note="0 to 100: image against the prompt that it was drawn from",
        digits=2,
        order=60,
        function=lambda inputs: clip_score(inputs.encoder, inputs.images_NHWC, inputs.texts),
    )
)


def clip_score_of_embeddings(image_embeddings_NE: object, text_embeddings_NE: object) -> np.ndarray:
    """The CLIP score of each image with the text of the same row, 0 to 100: float64 (N,)."""
    images = checked_embeddings(image_embeddings_NE, CLIP_SCORE.name)
    texts = checked_embeddings(text_embeddings_NE, CLIP_SCORE.name)
    if images.shape != texts.shape:
        raise MetricError(CLIP_SCORE.name, f"image embeddings {images.shape} and text embeddings {texts.shape} do not match")
    return 100 * np.clip((images * texts).sum(axis=1), 0, 1)


def encode_images(encoder: ClipEncoder, images_NHWC: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """Unit embeddings of uint8 images (N, H, W, 3), `batch_size` at a time: float64 (N, E), as the diversity metrics take them."""
    images_NHWC = checked_images(images_NHWC, CLIP_SCORE.name)
    return _in_batches(encoder.encode_image, images_NHWC, batch_size)


def encode_texts(encoder: ClipEncoder, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """Unit embeddings of texts, `batch_size` at a time: float64 (N, E)."""
    if isinstance(texts, str) or not texts:
        raise MetricError(CLIP_SCORE.name, "wants a list of texts")
    return _in_batches(encoder.encode_text, list(texts), batch_size)


def clip_score(encoder: ClipEncoder, images_NHWC: np.ndarray, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """The CLIP score of each image with its text, 0 to 100: float64 (N,).

    Args:
        encoder: anything with `encode_image` and `encode_text`, see `ClipEncoder`.
        images_NHWC: uint8 (N, H, W, 3).
        texts: N texts; an image's score is read against the text of the same position.
    """
    if len(images_NHWC) != len(texts):
        raise MetricError(CLIP_SCORE.name, f"{len(images_NHWC)} images but {len(texts)} texts")
    images_NE = encode_images(encoder, images_NHWC, batch_size)
    return clip_score_of_embeddings(images_NE, encode_texts(encoder, texts, batch_size))


def _in_batches(encode: Callable, items: Sequence, batch_size: int) -> np.ndarray:
    parts = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        part = checked_embeddings(encode(batch), CLIP_SCORE.name)
        if len(part) != len(batch):
            raise MetricError(CLIP_SCORE.name, f"the encoder gave {len(part)} embeddings for {len(batch)} items")
        parts.append(part)
    return np.concatenate(parts)

"""PIQE and entropy of images by pyiqa: the two of its no-reference metrics that need no downloaded weights.

Neither measures quality on small pictures: PIQE looks at blocks of 16 px with thresholds made for photographs, calls smooth
small pictures the worst and gets better with noise; entropy counts grey levels. Both are shown with that note and enter no
verdict there.
"""

from __future__ import annotations

import functools
import logging
import math
from typing import Any

import numpy as np

from ablations.metrics.base import Metric, checked_images, checked_scores
from ablations.metrics.register import register

# PIQE's block, and the smallest side for which it sees a whole one without padding.
PIQE_MIN_SIDE = 16
_SMALL_BELOW = 256
_LICENCE = "pyiqa: PolyForm Noncommercial 1.0.0"
# pyiqa's entropy makes a one-hot code of every pixel, 2 kB each: this many pixels at a time keep it at 128 MB.
_ENTROPY_PIXELS = 64 * 1024
_PIQE_PIXELS = 4 * 1024 * 1024

PIQE = register(
    Metric(
        name="piqe",
        title="PIQE",
        per="image",
        higher_is_better=False,
        range=(0.0, 100.0),
        needs=("images",),
        licence=_LICENCE,
        source="Venkatanath et al. 2015, pyiqa",
        small_below=_SMALL_BELOW,
        min_side=PIQE_MIN_SIDE,
        always=True,
        shown=True,
        against_controls=False,
        function=lambda inputs: piqe(inputs.images_NHWC, inputs.device),
    )
)
ENTROPY = register(
    Metric(
        name="entropy",
        title="Entropy (bits)",
        per="image",
        higher_is_better=None,
        range=(0.0, 8.0),
        needs=("images",),
        licence=_LICENCE,
        note="Shannon entropy of the grey levels: more is not better",
        source="pyiqa",
        small_below=_SMALL_BELOW,
        always=True,
        shown=True,
        against_controls=False,
        function=lambda inputs: entropy(inputs.images_NHWC, inputs.device),
    )
)


def create_quietly(name: str, device: str, **options: object) -> Any:
    """One of pyiqa's metrics, without the line on stderr by which it announces itself: nothing that it says concerns the user."""
    import pyiqa

    logger = logging.getLogger("pyiqa")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return pyiqa.create_metric(name, device=device, **options)
    finally:
        logger.setLevel(level)


@functools.cache
def _pyiqa_metric(name: str, device: str) -> Any:
    return create_quietly(name, device)


def _scores(metric: Metric, images_NHWC: np.ndarray, device: str, pixels_at_once: int) -> np.ndarray:
    import torch

    model = _pyiqa_metric(metric.name, device)
    chunk = max(1, pixels_at_once // math.prod(images_NHWC.shape[1:3]))
    parts = []
    for start in range(0, len(images_NHWC), chunk):
        images_NCHW = torch.from_numpy(np.ascontiguousarray(images_NHWC[start : start + chunk].transpose(0, 3, 1, 2)))
        parts.append(model(images_NCHW.float().div(255)).double().cpu().numpy().reshape(-1))
    return checked_scores(np.concatenate(parts), metric.name)


def piqe(images_NHWC: np.ndarray, device: str = "cpu") -> np.ndarray:
    """PIQE of each image, 0 (good) to 100 (bad): float64 (N,).

    Args:
        images_NHWC: uint8 (N, H, W, 3), at least 16 px a side.

    PIQE divides a picture by its maximum, so that flat pictures of every brightness score 100. Black has no maximum; as the
    limit of those it scores 100 too. Raises MetricError for smaller pictures, and where pyiqa gives no finite number.
    """
    images_NHWC = checked_images(images_NHWC, PIQE.name, min_side=PIQE_MIN_SIDE)
    black_N = ~images_NHWC.any(axis=(1, 2, 3))
    if black_N.any():
        images_NHWC = np.where(black_N[:, None, None, None], np.uint8(255), images_NHWC)
    return _scores(PIQE, images_NHWC, device, _PIQE_PIXELS)


def entropy(images_NHWC: np.ndarray, device: str = "cpu") -> np.ndarray:
    """Shannon entropy of each image's 256 grey levels in bits, 0 to 8: float64 (N,). Images are uint8 (N, H, W, 3)."""
    images_NHWC = checked_images(images_NHWC, ENTROPY.name)
    # pyiqa adds 1e-8 inside the logarithm, which takes a flat picture to -1.4e-8.
    return np.maximum(_scores(ENTROPY, images_NHWC, device, _ENTROPY_PIXELS), 0.0)

"""What a table has to know of a metric, and the register of all metrics.

A metric module registers a `Metric` for each value it computes and offers plain functions that compute them. Two rules hold
for all of those functions: values are float64, and a metric that cannot be computed raises `MetricError` naming itself,
instead of returning a number.
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class MetricError(ValueError):
    """A metric could not be computed; the message starts with the metric's name."""

    def __init__(self, metric: str, problem: str) -> None:
        super().__init__(f"metric {metric}: {problem}")
        self.metric = metric


@dataclass(frozen=True)
class Metric:
    """One metric, as tables show it.

    `name` is the key in scores.parquet, `title` the heading. `per` is "image" for a value per image, "candidates" for a value
    per set of candidates of one prompt. `higher_is_better` is None where neither direction is better; such a metric enters no
    verdict. `range` holds the least and the greatest possible value. `needs` lists what is handed in, out of "images",
    "image_embeddings", "text_embeddings", "texts" and "scene".
    On pictures whose longer side is below `small_below` pixels the metric is no quality measure: see `note_at`.
    """

    name: str
    title: str
    per: str
    higher_is_better: bool | None
    range: tuple[float, float]
    needs: tuple[str, ...]
    licence: str
    note: str = ""
    source: str = ""
    small_below: int = 0

    def __post_init__(self) -> None:
        assert self.per in ("image", "candidates"), self.per
        assert self.range[0] < self.range[1], self.range

    def note_at(self, image_size: int) -> str:
        """The note for pictures of `image_size` pixels; starts with "not a quality measure at 64 px" where that is so."""
        if image_size < self.small_below:
            return "; ".join(part for part in (f"not a quality measure at {image_size} px", self.note) if part)
        return self.note

    def higher_is_better_at(self, image_size: int) -> bool | None:
        """`higher_is_better`, or None (in no verdict) on pictures of `image_size` pixels that are too small for the metric."""
        return None if image_size < self.small_below else self.higher_is_better


_METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Enters a metric in the register and returns it. Registering the same metric again is harmless; two under one name are not."""
    assert _METRICS.get(metric.name, metric) == metric, f"two different metrics are called {metric.name!r}"
    _METRICS[metric.name] = metric
    return metric


def all_metrics() -> dict[str, Metric]:
    """Every metric of this package by name, in the order of the modules' names."""
    package = importlib.import_module(__package__)
    for module in sorted(module.name for module in pkgutil.iter_modules(package.__path__)):
        importlib.import_module(f"{__package__}.{module}")
    return dict(_METRICS)


def metric_named(name: str) -> Metric:
    """The metric called `name`. Raises ValueError with the nearest known name where there is none."""
    metrics = all_metrics()
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, n=1, cutoff=0.0)
        raise ValueError(f"unknown metric {name!r}; the nearest is {near[0]!r}, known are {', '.join(metrics)}")
    return metrics[name]


def checked_images(images: np.ndarray, metric: str, min_side: int = 1) -> np.ndarray:
    """`images` as uint8 (N, H, W, 3), N >= 1, both sides at least `min_side` pixels; raises MetricError otherwise."""
    images = np.asarray(images)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) == 0:
        raise MetricError(metric, f"wants uint8 images (N, H, W, 3), got {images.dtype} {images.shape}")
    if min(images.shape[1:3]) < min_side:
        raise MetricError(metric, f"wants pictures of at least {min_side} px a side, got {images.shape[2]} x {images.shape[1]}")
    return images


def checked_embeddings(embeddings: object, metric: str) -> np.ndarray:
    """`embeddings` (N, E), array or tensor, as float64 rows of unit length; raises MetricError on a row without a direction."""
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().double().cpu().numpy()
    vectors = np.asarray(embeddings, dtype=np.float64)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise MetricError(metric, f"wants embeddings (N, E), got an array of shape {vectors.shape}")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))
    if bad.size:
        raise MetricError(metric, f"embedding {bad[0]} (of {len(vectors)}) is zero or not finite")
    return vectors / lengths


def checked_scores(scores: Sequence[float] | np.ndarray, metric: str) -> np.ndarray:
    """`scores` (N,) as float64; raises MetricError where one is not finite, so that a failure is never averaged."""
    values = np.asarray(scores, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise MetricError(metric, f"gave {values[bad[0]]} for item {bad[0]} of {len(values)}")
    return values


def at_least_two(count: int, metric: str) -> None:
    """Raises MetricError unless there are two candidates to compare."""
    if count < 2:
        raise MetricError(metric, f"compares candidates of one prompt and needs at least 2, got {count}")


UNBOUNDED = math.inf

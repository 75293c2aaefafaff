"""What a table has to know of a metric, the register of all metrics, and the one way to compute any of them by name.

A metric module registers a `Metric` for each value it computes and offers plain functions that compute them. Two rules hold
for all of those functions: values are float64, and a metric that cannot be computed raises `MetricError` naming itself,
instead of returning a number.

    required = require(["niqe", "nima-aesthetic"], missing="skip")          before anything expensive is started
    for metric in required.available:
        values_N = metric.compute(images_NHWC, texts=prompts, device="cuda")
    required.unavailable                                                    {name: why}: "not available" in tables, never a number
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ablations.metrics import weights as weight_files
from ablations.runtime.errors import UserError

if TYPE_CHECKING:
    from ablations.metrics.base import ClipEncoder

NOT_AVAILABLE = "not available"
_MOST_AT_ONCE = 16
QUALITY, DIVERSITY = "quality", "diversity"
NEEDS = ("images", "image_embeddings", "text_embeddings", "texts", "references", "scene")


class MetricError(ValueError):
    """A metric could not be computed; the message starts with the metric's name."""

    def __init__(self, metric: str, problem: str) -> None:
        super().__init__(f"metric {metric}: {problem}")
        self.metric = metric


@dataclass(frozen=True)
class Inputs:
    """What a metric may read: N pictures, uint8 (N, H, W, 3), and what belongs to each, in the same order.

    texts: the prompt that each picture is compared with. references_NHWC: a picture that each is compared with. encoder: a CLIP
    model. device: where networks run, as torch writes it. folder: where weights lie, see `ablations.metrics.weights`.
    """

    images_NHWC: np.ndarray
    texts: Sequence[str] | None = None
    references_NHWC: np.ndarray | None = None
    encoder: ClipEncoder | None = None
    device: str = "cpu"
    folder: Path | None = None


@dataclass(frozen=True)
class Metric:
    """One metric: as tables show it, and how it is computed.

    `name` is the key in scores.parquet, `title` the heading. `per` is "image" for a value per image, "candidates" for a value
    per set of candidates of one prompt, "pictures" for a value of all pictures of a condition together. `higher_is_better` is None
    where neither direction is better; such a metric enters no verdict. `range` holds the least and the greatest possible value.
    `needs` lists what is handed in, out of "images", "image_embeddings", "text_embeddings", "texts", "references" and "scene".
    On pictures whose longer side is below `small_below` pixels the metric is no quality measure: see `note_at`. Pictures with a side
    below `min_side` pixels it cannot read at all.
    `weights` names files of `ablations.metrics.weights`, all of which it needs. `version` changes when its values do.
    `function` takes `Inputs` of at most `at_once` pictures and gives float64 rows, (N,) or (N, D); a metric without one is computed by
    its own module's functions alone. For per="pictures" and per="candidates", `together` makes the one value of the rows (N, D).

    Where it is seen. `always`: every cell scores it. `shown`: it has a row in the table that a cell ends with, and (unless
    `against_controls` says otherwise) in that of `ablations.controls`. `in_tables`: the report has a column for it, whose heading is
    `heading` ("": the title), whose note is `table_note` (None: the note), with `digits` decimals, in the half of the table that `block`
    names: "quality" or "diversity" ("": diversity for per="candidates", else quality). `order` is its place among the others, those of
    equal order by name. `at_shared_noise`: a second column reads it where all candidates have one image noise. `full_scale` is the
    value that counts as 100 points (None: the greatest possible one, or 1 where there is none). `is_label`: its values are classes,
    which are averaged nowhere.
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
    min_side: int = 1
    weights: tuple[str, ...] = ()
    version: str = "1"
    pixels_at_once: int = 4 * 1024 * 1024
    function: Callable[[Inputs], np.ndarray] | None = field(default=None, compare=False, repr=False)
    together: Callable[[np.ndarray], float] | None = field(default=None, compare=False, repr=False)
    always: bool = False
    shown: bool = False
    against_controls: bool | None = None
    in_tables: bool = True
    heading: str = ""
    table_note: str | None = None
    digits: int = 3
    block: str = ""
    order: int = 1000
    at_shared_noise: bool = False
    full_scale: float | None = None
    is_label: bool = False

    def __post_init__(self) -> None:
        """Raises UserError for a declaration that cannot be meant, and fills in what follows from the rest."""
        if self.per not in ("image", "candidates", "pictures"):
            raise self._refused(f'per must be "image", "candidates" or "pictures", not {self.per!r}')
        if not self.range[0] < self.range[1]:
            raise self._refused(f"range must hold the least and the greatest possible value, not {self.range}")
        if (self.per == "pictures" and self.together is None) or (self.per == "image" and self.together is not None):
            raise self._refused(f'together makes one value of several pictures; per="pictures" needs it, per={self.per!r} was given')
        if unknown := [need for need in self.needs if need not in NEEDS]:
            raise self._refused(f"needs may hold {', '.join(NEEDS)}, not {unknown[0]!r}")
        if self.block not in ("", QUALITY, DIVERSITY):
            raise self._refused(f'block must be "{QUALITY}" or "{DIVERSITY}", not {self.block!r}')
        if self.function is not None and not callable(self.function):
            raise self._refused("function must be a function of Inputs")
        object.__setattr__(self, "heading", self.heading or self.title)
        object.__setattr__(self, "block", self.block or (DIVERSITY if self.per == "candidates" else QUALITY))
        object.__setattr__(self, "against_controls", self.shown if self.against_controls is None else self.against_controls)

    def _refused(self, problem: str) -> UserError:
        return UserError(f"metric {self.name}: {problem}")

    def compute(
        self,
        images_NHWC: np.ndarray,
        texts: Sequence[str] | None = None,
        references_NHWC: np.ndarray | None = None,
        encoder: ClipEncoder | None = None,
        device: str = "cpu",
        folder: Path | None = None,
    ) -> np.ndarray:
        """The value of each picture, float64 (N,); with `together`, the rows (N, D) that it makes one value of.

        Args:
            images_NHWC: uint8 (N, H, W, 3). The other arguments are as in `Inputs`; those that are not in `needs` are ignored.

        Raises MetricError where it cannot be computed, UserError where its weights are missing (`require` finds that out beforehand).
        """
        images_NHWC = checked_images(images_NHWC, self.name, min_side=self.min_side)
        if self.function is None:
            raise MetricError(self.name, "is a value of a set or of embeddings and is not computed picture by picture")
        for need, given in (("texts", texts), ("references", references_NHWC)):
            if need in self.needs and (given is None or len(given) != len(images_NHWC)):
                raise MetricError(self.name, f"wants {len(images_NHWC)} {need}, got {'none' if given is None else len(given)}")
        if {"texts", "image_embeddings"} & set(self.needs) and encoder is None:
            raise MetricError(self.name, "wants a CLIP encoder, got none")
        parts = []
        for start in range(0, len(images_NHWC), step := self.at_once(images_NHWC)):
            part = slice(start, start + step)
            own = [None if given is None else given[part] for given in (texts, references_NHWC)]
            parts.append(self.function(Inputs(images_NHWC[part], own[0], own[1], encoder, device, folder)))
        rows = np.concatenate(parts)
        if len(rows) != len(images_NHWC):
            raise MetricError(self.name, f"gave {len(rows)} values for {len(images_NHWC)} pictures")
        return checked_scores(rows, self.name)

    def at_once(self, images_NHWC: np.ndarray) -> int:
        """How many pictures of this size go through the metric at a time: 1 to 16, by `pixels_at_once`."""
        return min(_MOST_AT_ONCE, max(1, self.pixels_at_once // math.prod(images_NHWC.shape[1:3])))

    def key(self, folder: Path | None = None) -> str:
        """What its values depend on besides the picture: name, version and the bytes of its weights, as in niqe.v1.fa2aa4d1; of a
        plug-in's metric also the bytes of its module."""
        folder = folder or weight_files.weights_folder()
        digests = [weight_files.digest_of(folder / name)[:8] for name in self.weights]
        return ".".join([self.name, f"v{self.version}", *digests, *self._plug_in()])

    def _plug_in(self) -> list[str]:
        """The digest of the module that the function comes from, where it is not of this package, whose code others look after."""
        name = getattr(self.function, "__module__", None) or ""
        file = getattr(sys.modules.get(name), "__file__", None)
        if name.partition(".")[0] == __package__.partition(".")[0] or file is None:
            return []
        return [hashlib.sha256(Path(file).read_bytes()).hexdigest()[:8]]

    @property
    def can_be_asked_for(self) -> bool:
        """Whether `compute` gives it by name from pictures alone, so that eval.metrics may list it."""
        return self.function is not None and self.needs == ("images",) and (self.per != "candidates" or self.together is not None)

    def table_note_at(self, image_size: int) -> str:
        """The note of its column; starts with "not a quality measure at 64 px" where that is so."""
        if self.table_note is None:
            return self.note_at(image_size)
        too_small = [f"not a quality measure at {image_size} px"] if image_size < self.small_below else []
        return "; ".join([*too_small, *([self.table_note] if self.table_note else [])])

    @property
    def points(self) -> float:
        """The value that counts as 100 points."""
        if self.full_scale is not None:
            return self.full_scale
        return self.range[1] if math.isfinite(self.range[1]) else 1.0

    def note_at(self, image_size: int) -> str:
        """The note for pictures of `image_size` pixels; starts with "not a quality measure at 64 px" where that is so."""
        if image_size < self.small_below:
            return "; ".join(part for part in (f"not a quality measure at {image_size} px", self.note) if part)
        return self.note

    def higher_is_better_at(self, image_size: int) -> bool | None:
        """`higher_is_better`, or None (in no verdict) on pictures of `image_size` pixels that are too small for the metric."""
        return None if image_size < self.small_below else self.higher_is_better


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
    """`scores` (N,), or rows (N, D), as float64; raises MetricError where one is not finite, so that a failure is never averaged."""
    values = np.asarray(scores, dtype=np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if bad.size:
        raise MetricError(metric, f"gave {values[tuple(bad[0])]} for item {bad[0][0]} of {len(values)}")
    return values


def at_least_two(count: int, metric: str) -> None:
    """Raises MetricError unless there are two candidates to compare."""
    if count < 2:
        raise MetricError(metric, f"compares candidates of one prompt and needs at least 2, got {count}")


UNBOUNDED = math.inf


class ClipEncoder(Protocol):
    """A CLIP model as the metrics want it: both callables give embeddings (N, E), arrays or tensors, of any length."""

    encode_image: Callable[[np.ndarray], object]  # uint8 (N, H, W, 3)
    encode_text: Callable[[Sequence[str]], object]

"""A complete cache of frozen features, as batches read it."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.feature_cache.row_digests import DAMAGE, ROWS, different, rows_name
from datamodules.files import file_digest

_FORMAT = 1
# So much is read whole when a cache is opened: some tenths of a second. Of more, what is read is compared when it is read.
CHECKED_AT_ONCE = 512e6
# A row that was found damaged leaves this file, so that the next one who opens the cache reads it whole.
SUSPECT = "damaged"


class DamagedFeaturesError(ValueError):
    """Features that are not what was written. Its message is one line."""


class FeatureEncoder(Protocol):
    """A frozen network that turns pictures into features; `digest` covers its weights, preprocessing, dtype and scaling."""

    name: str
    digest: str

    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    def encode(self, images_BCHW: Tensor) -> dict[str, Tensor]: ...


@dataclass
class FeatureCache:
    """The features of one encoder for one list of records; `open_or_build` makes it ready.

    `content_digest` digests the records' ids and pictures, in order.
    """

    cache_dir: Path
    name: str
    encoder_digest: str
    shapes: dict[str, tuple[int, ...]]
    num_records: int
    content_digest: str
    image_size: int
    flips: bool
    _arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    _digests: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """Digest of everything that the numbers depend on."""
        encoder = [self.name, self.encoder_digest, sorted(self.shapes.items())]
        pictures = [self.num_records, self.content_digest, self.image_size, self.flips]
        return hashlib.sha256(json.dumps([_FORMAT, encoder, pictures]).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.cache_dir / f"{self.name}-{self.key[:16]}"

    @property
    def num_views(self) -> int:
        return 2 if self.flips else 1

    def num_bytes(self) -> int:
        """Size on disk, to within the files' headers."""
        row = sum(4 * math.prod(shape) + ROWS.itemsize for shape in self.shapes.values())
        return self.num_views * self.num_records * row

    def is_valid(self, full: bool = False) -> bool:
        """Whether the folder holds this cache, whole. `full` reads every byte and compares digests; else sizes are compared."""
        try:
            meta = json.loads((self.folder / "meta.json").read_bytes())
            rows = meta.get("rows", {})
            if meta["key"] != self.key or set(meta["files"]) != set(self.shapes) or (rows and set(rows) != set(self.shapes)):
                return False
            for feature, entry in meta["files"].items():
                path = self.folder / f"{feature}.npy"
                if path.stat().st_size != entry["bytes"]:
                    return False
                array = np.load(path, mmap_mode="r")
                if array.dtype != np.float32 or array.shape != (self.num_views, self.num_records, *self.shapes[feature]):
                    return False
                if rows and file_digest(self.folder / rows_name(feature)) != rows[feature]["sha256"]:
                    return False
                if full and not rows and file_digest(path) != entry["sha256"]:
                    return False
            return not full or not rows or bool(self.whole_rows().all())
        except DAMAGE:
            return False

    def is_ready(self, full: bool = False) -> bool:
        """Whether it is valid, as far as that is looked at when a cache is opened: every byte of a small one, of one from before rows had
        digests, and of one that was found damaged. Rows of the others are compared when they are read."""
        full = full or self.num_bytes() <= CHECKED_AT_ONCE or (self.folder / SUSPECT).exists()
        return self.is_valid(full or not all((self.folder / rows_name(feature)).exists() for feature in self.shapes))

    def whole_rows(self) -> np.ndarray:
        """Which records' features are what was written, in every view: bool (N,). Reads every byte.

        Raises one of DAMAGE where files are missing or have another shape.
        """
        whole = np.ones(self.num_records, dtype=bool)
        for feature, array in self._opened().items():
            if array.shape != (self.num_views, self.num_records, *self.shapes[feature]) or feature not in self._digests:
                raise ValueError(f"{feature} has another shape, or no digests of its rows")
            for view in range(self.num_views):
                whole[different(array[view], self._digests[feature][view])] = False
        return whole

    def rows(self, views: np.ndarray, positions: np.ndarray) -> dict[str, Tensor]:
        """Features of records by position and view (0 plain, 1 mirrored; both int64 (B,)): float32 (B, ...) each, copied.

        Raises DamagedFeaturesError where one is not what was written.
        """
        found = {}
        for feature, array in self._opened().items():
            rows = np.ascontiguousarray(array[views, positions])
            if feature in self._digests and (bad := different(rows, self._digests[feature][views, positions])):
                raise self._damaged(feature, int(positions[bad[0]]))
            found[feature] = torch.from_numpy(rows)
        return found

    def _opened(self) -> dict[str, np.ndarray]:
        if not self._arrays:
            self._arrays = {feature: np.load(self.folder / f"{feature}.npy", mmap_mode="r") for feature in self.shapes}
            paths = {feature: self.folder / rows_name(feature) for feature in self.shapes}
            self._digests = {feature: np.load(path) for feature, path in paths.items() if path.exists()}
            for feature, digests in self._digests.items():
                if digests.shape != (self.num_views, self.num_records) or digests.dtype != ROWS:
                    raise ValueError(f"{paths[feature]} has another shape")
        return self._arrays

    def forget(self) -> None:
        """Close the files: they are, or will be, others."""
        self._arrays, self._digests = {}, {}

    def _damaged(self, feature: str, position: int) -> DamagedFeaturesError:
        with suppress(OSError):
            (self.folder / SUSPECT).touch()
        return DamagedFeaturesError(
            f"feature cache: {feature} of picture {position} in {self.folder} is damaged (its bytes are not those that were written): "
            "run again, which makes it anew"
        )

    def __getstate__(self) -> dict:
        # A pickled memory map would carry the whole file to every worker.
        return {**self.__dict__, "_arrays": {}, "_digests": {}}

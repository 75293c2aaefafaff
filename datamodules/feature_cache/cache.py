"""A complete cache of frozen features, as batches read it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from datamodules.files import file_digest

_FORMAT = 1


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
        return sum(4 * self.num_views * self.num_records * math.prod(shape) for shape in self.shapes.values())

    def is_valid(self, full: bool = False) -> bool:
        """Whether the folder holds this cache, whole. `full` reads every byte and compares digests; else sizes are compared."""
        try:
            meta = json.loads((self.folder / "meta.json").read_bytes())
            if meta["key"] != self.key or set(meta["files"]) != set(self.shapes):
                return False
            for feature, entry in meta["files"].items():
                path = self.folder / f"{feature}.npy"
                if path.stat().st_size != entry["bytes"] or (full and file_digest(path) != entry["sha256"]):
                    return False
                array = np.load(path, mmap_mode="r")
                if array.dtype != np.float32 or array.shape != (self.num_views, self.num_records, *self.shapes[feature]):
                    return False
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False
        return True

    def rows(self, views: np.ndarray, positions: np.ndarray) -> dict[str, Tensor]:
        """Features of records by position and view (0 plain, 1 mirrored; both int64 (B,)): float32 (B, ...) each, copied."""
        if not self._arrays:
            self._arrays = {feature: np.load(self.folder / f"{feature}.npy", mmap_mode="r") for feature in self.shapes}
        return {feature: torch.from_numpy(np.ascontiguousarray(array[views, positions])) for feature, array in self._arrays.items()}

    def __getstate__(self) -> dict:
        # A pickled memory map would carry the whole file to every worker.
        return {**self.__dict__, "_arrays": {}}

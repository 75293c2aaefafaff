"""Frozen features on disk, computed once per data set and keyed by what made them.

A cache is a folder `NAME-KEY/` with one memory-mapped `.npy` per feature, float32 (V, N, ...), and `meta.json`. KEY digests the
encoder, the pictures in their order, the image size and the flips: whatever changes the numbers changes the folder. It is
written aside under a lock and renamed, so that a cache is whole or absent; one that is torn is rebuilt, never used.

Shapes: V = views (1, or 2: plain and mirrored), N = records, B = batch, 3 H W = picture.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

_FORMAT = 1
_NPY_ALLOWANCE = 4096


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
                if path.stat().st_size != entry["bytes"] or (full and _sha256(path) != entry["sha256"]):
                    return False
                array = np.load(path, mmap_mode="r")
                if array.dtype != np.float32 or array.shape != (self.num_views, self.num_records, *self.shapes[feature]):
                    return False
        except (OSError, ValueError, KeyError, TypeError):
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


def open_or_build(
    caches: Sequence[FeatureCache],
    encoders: Sequence[FeatureEncoder],
    image_batches: Callable[[], Iterable[Tensor]],
    track: Callable[[Iterable[Tensor], int, str], Iterable[Tensor]],
    say: Callable[[str], None],
    full_check: bool = False,
) -> None:
    """Make every cache ready: use what is there and whole, and encode the rest in one pass over the pictures.

    `image_batches` gives float32 (B, 3, H, W) in [-1, 1] in the records' order; mirrored views are made here. Processes that
    come at the same time wait for the one that builds. Raises ValueError for features that are not finite or not of the
    promised shape, or where the disk is too small.
    """
    pairs = [(cache, encoder) for cache, encoder in zip(caches, encoders, strict=True) if not cache.is_valid(full_check)]
    if not pairs:
        return
    pairs.sort(key=lambda pair: pair[0].folder)  # one order of locking for everyone: no deadlock
    with ExitStack() as locks:
        for cache, _ in pairs:
            cache.cache_dir.mkdir(parents=True, exist_ok=True)
            locks.enter_context(FileLock(f"{cache.folder}.lock"))
        pairs = [(cache, encoder) for cache, encoder in pairs if not cache.is_valid(full_check)]
        if pairs:
            _forecast([cache for cache, _ in pairs], say)
            _build(pairs, image_batches, track)


def _forecast(caches: list[FeatureCache], say: Callable[[str], None]) -> None:
    needed = sum(cache.num_bytes() + _NPY_ALLOWANCE * len(cache.shapes) for cache in caches)
    free = shutil.disk_usage(caches[0].cache_dir).free
    names = " and ".join(cache.name for cache in caches)
    views = ", plain and mirrored" if caches[0].flips else ""
    say(f"feature cache: encoding {caches[0].num_records} pictures{views}, into {names}: {needed / 1e6:.1f} MB in {caches[0].cache_dir}")
    if needed > free:
        raise ValueError(
            f"the feature cache needs {needed / 1e9:.2f} GB and {caches[0].cache_dir} has {free / 1e9:.2f} GB free: "
            "set data.cache_dir to a larger disk, or data.cache=false"
        )


def _build(pairs: list[tuple[FeatureCache, FeatureEncoder]], image_batches, track) -> None:
    asides = [cache.cache_dir / f".{cache.folder.name}.{os.getpid()}.partial" for cache, _ in pairs]
    try:
        files = []
        for (cache, _), aside in zip(pairs, asides, strict=True):
            for left_over in cache.cache_dir.glob(f".{cache.folder.name}.*.partial"):  # of a killed process: we hold the lock
                shutil.rmtree(left_over, ignore_errors=True)
            aside.mkdir()
            files.append({feature: _create(aside / f"{feature}.npy", cache, shape) for feature, shape in cache.shapes.items()})
        start = 0
        for images_BCHW in track(image_batches(), pairs[0][0].num_records, "encoding pictures"):
            for (cache, encoder), arrays in zip(pairs, files, strict=True):
                for view in range(cache.num_views):
                    _encode_into(arrays, view, start, encoder, images_BCHW.flip(-1) if view else images_BCHW)
            start += len(images_BCHW)
        assert start == pairs[0][0].num_records, "every record has a picture"
        for (cache, _), aside, arrays in zip(pairs, asides, files, strict=True):
            for array in arrays.values():
                array.flush()
            arrays.clear()
            _finish(cache, aside)
    finally:
        for aside in asides:
            shutil.rmtree(aside, ignore_errors=True)


def _create(path: Path, cache: FeatureCache, shape: tuple[int, ...]) -> np.ndarray:
    return np.lib.format.open_memmap(path, "w+", np.float32, (cache.num_views, cache.num_records, *shape))


def _encode_into(arrays: dict[str, np.ndarray], view: int, start: int, encoder: FeatureEncoder, images_BCHW: Tensor) -> None:
    with torch.no_grad():
        features = encoder.encode(images_BCHW)
    for feature, array in arrays.items():
        values = features[feature].detach().float().cpu().numpy()
        if values.shape != (len(images_BCHW), *array.shape[2:]):
            raise ValueError(f"encoder {encoder.name}: {feature} has shape {values.shape[1:]}, not {array.shape[2:]}")
        if not np.isfinite(values).all():
            at = start + int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"encoder {encoder.name}: {feature} of picture {at} is not finite; use a wider dtype or check its weights")
        array[view, start : start + len(values)] = values


def _finish(cache: FeatureCache, aside: Path) -> None:
    """Describe the files, flush them to disk, and give the folder its name."""
    files = {}
    for feature in cache.shapes:
        path = aside / f"{feature}.npy"
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[feature] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    meta = {
        "key": cache.key,
        "encoder": cache.name,
        "encoder_digest": cache.encoder_digest,
        "content_digest": cache.content_digest,
        "num_records": cache.num_records,
        "image_size": cache.image_size,
        "flips": cache.flips,
        "files": files,
    }
    with open(aside / "meta.json", "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if cache.folder.exists():
        shutil.rmtree(cache.folder)
    os.rename(aside, cache.folder)
    cache._arrays = {}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

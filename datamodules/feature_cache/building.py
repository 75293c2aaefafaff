"""Frozen features on disk, computed once per data set and keyed by what made them.

A cache is a folder `NAME-KEY/` with one memory-mapped `.npy` per feature, float32 (V, N, ...), the digests of its rows, and `meta.json`.
KEY digests the encoder, the pictures in their order, the image size and the flips: whatever changes the numbers changes the folder. One
process writes it aside, under a lock, and renames it; all read it. So a cache is whole or absent; what is damaged in one is made again,
never used (`datamodules.feature_cache.row_digests`). What a killed process had written goes on from there
(`datamodules.feature_cache.partial`).

Shapes: V = views (1, or 2: plain and mirrored), N = records, B = batch, 3 H W = picture.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from datamodules.feature_cache.cache import FeatureCache, FeatureEncoder
from datamodules.feature_cache.partial import PartialCache, take_back, who_writes
from datamodules.feature_cache.ranges import Ranges, length, merged, missing, part_of
from datamodules.files import explained_errors
from datamodules.progress import duration, size_in_words

# Has all processes encode the rows that are missing: it hands their number to this one's part, and comes back when all are done.
Together = Callable[[Ranges, Callable[[int], None]], None]

_NPY_ALLOWANCE = 4096
# How often rows that are done are made to last: a killed process loses at most so many seconds of work.
KEEP_EVERY_S = 20.0
_SAY_WAITING_EVERY_S = 60.0
_SAY_CHECKSUMS_FROM = 5e9


def open_or_build(
    caches: Sequence[FeatureCache],
    encoders: Sequence[FeatureEncoder],
    image_batches: Callable[..., Iterable[Tensor]],
    track: Callable[[Iterable[Tensor], int, str], Iterable[Tensor]],
    say: Callable[[str], None],
    full_check: bool = False,
    together: Together | None = None,
) -> None:
    """Make every cache ready: use what is there and whole, and encode the rest in one pass over the pictures.

    `image_batches()` gives float32 (B, 3, H, W) in [-1, 1] in the records' order, `image_batches(start, end)` those of the records from
    `start` to before `end`, where others are done; mirrored views are made here. `together` has several processes do it, each by
    `encode_beside`. Processes that come at the same time wait for the one
    that builds, and say so. Raises ValueError for features that are not finite or not of the promised shape, or where the disk is
    too small or cannot be written.
    """
    pairs = [(cache, encoder) for cache, encoder in zip(caches, encoders, strict=True) if not cache.is_ready(full_check)]
    if not pairs:
        return
    pairs.sort(key=lambda pair: pair[0].folder)  # one order of locking for everyone: no deadlock
    with explained_errors(caches[0].cache_dir, "set data.cache_dir to another disk, or data.cache=false"), ExitStack() as locks:
        for cache, _ in pairs:
            cache.cache_dir.mkdir(parents=True, exist_ok=True)
            locks.callback(_locked(cache, say).release)
        pairs = [(cache, encoder) for cache, encoder in pairs if not cache.is_ready(full_check)]
        for cache in (cache for cache, _ in pairs if cache.folder.exists()):
            lost = take_back(cache)
            say(f"feature cache: {cache.folder.name} is damaged ({lost} of {cache.num_records} pictures): these are made again")
        if pairs:
            _forecast([cache for cache, _ in pairs], say)
            _build(pairs, image_batches, track, say, together)


def encode_beside(
    caches: Sequence[FeatureCache],
    encoders: Sequence[FeatureEncoder],
    image_batches: Callable[..., Iterable[Tensor]],
    lacking: Ranges,
    share: tuple[int, int],
) -> None:
    """The part of a process beside the one in `open_or_build`, which has made the files ready and said what is `lacking`.

    `share` is (its number, the number of all).
    """
    rank, _ = share
    pairs = [(cache, encoder) for cache, encoder in zip(caches, encoders, strict=True) if not cache.is_valid()]
    partials = [PartialCache(cache, beside=rank) for cache, _ in pairs]
    try:
        encoders = [encoder for _, encoder in pairs]
        _encode(partials, encoders, image_batches, lambda items, total, what: items, lambda line: None, part_of(lacking, *share))
        for partial in partials:
            partial.keep()
    finally:
        for partial in partials:
            partial.abandon()


def _locked(cache: FeatureCache, say: Callable[[str], None]) -> FileLock:
    """The cache's lock, held; while another process holds it, says who and how far that one is."""
    lock = FileLock(f"{cache.folder}.lock")
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        say(f"feature cache: waiting for {cache.name}, which another process is writing{who_writes(cache)}")
    while True:
        try:
            lock.acquire(timeout=_SAY_WAITING_EVERY_S)
            return lock
        except Timeout:
            say(f"feature cache: still waiting for {cache.name}{who_writes(cache)}")


def _forecast(caches: list[FeatureCache], say: Callable[[str], None]) -> None:
    """Say how much the caches will take; raise ValueError where the disk has no room for what is not there yet."""
    size = sum(cache.num_bytes() + _NPY_ALLOWANCE * len(cache.shapes) for cache in caches)
    needed = max(0, size - sum(PartialCache.bytes_there(cache) for cache in caches))
    free = shutil.disk_usage(caches[0].cache_dir).free
    names = " and ".join(cache.name for cache in caches)
    views = ", plain and mirrored" if caches[0].flips else ""
    say(f"feature cache: encoding {caches[0].num_records} pictures{views}, into {names}: {size / 1e6:.1f} MB in {caches[0].cache_dir}")
    if needed > free:
        raise ValueError(
            f"the feature cache needs {size_in_words(needed)} and {caches[0].cache_dir} has {size_in_words(free)} free: "
            "set data.cache_dir to a larger disk, or data.cache=false"
        )


def _build(
    pairs: list[tuple[FeatureCache, FeatureEncoder]], image_batches, track, say: Callable[[str], None], together: Together | None
) -> None:
    partials = [PartialCache(cache) for cache, _ in pairs]
    encoders = [encoder for _, encoder in pairs]
    total = partials[0].cache.num_records
    lacking = merged(part for partial in partials for part in missing(partial.done, total))
    try:
        if there := total - length(lacking):
            say(f"feature cache: {there} of {total} pictures are there from an earlier run; going on with the others")
        if together is None:
            _encode(partials, encoders, image_batches, track, say, lacking)
        elif lacking:
            own = lambda count: _encode(partials, encoders, image_batches, track, say, part_of(lacking, 0, count))  # noqa: E731
            together(lacking, own)
            for partial in partials:
                partial.keep()
                partial.take_in()
        assert all(partial.has(0, partial.cache.num_records) for partial in partials), "every record has a picture"
        if sum(cache.num_bytes() for cache, _ in pairs) >= _SAY_CHECKSUMS_FROM:
            say("feature cache: every picture is encoded; checksums are computed")
        for partial in partials:
            partial.finish()
    except Exception:
        for partial in partials:
            partial.abandon()
        raise
    except BaseException:  # a signal: what is done is whole, and the next process goes on behind it
        for partial in partials:
            partial.keep()
            partial.abandon()
        raise


def _encode(
    partials: list[PartialCache],
    encoders: list[FeatureEncoder],
    image_batches,
    track,
    say: Callable[[str], None],
    own: Ranges,
) -> None:
    """One pass over the pictures of this process's rows, for the caches that lack them."""
    total = partials[0].cache.num_records
    count, began, done = length(own), time.monotonic(), 0
    kept = began
    for start, images_BCHW in track(_batches(own, total, image_batches), count, "encoding pictures"):
        end = start + len(images_BCHW)
        for partial, encoder in zip(partials, encoders, strict=True):
            if not partial.has(start, end):
                for view in range(partial.cache.num_views):
                    features = _features(encoder, partial.cache, start, images_BCHW.flip(-1) if view else images_BCHW)
                    partial.write(view, start, features)
                partial.mark(start, end)
        now = time.monotonic()
        done += end - start
        if done == end - start < count:
            each = (now - began) / done
            say(f"feature cache: about {duration(each * count)}, by the first batch: {each:.3g} s a picture")
        if now - kept >= KEEP_EVERY_S:
            kept = now
            for partial in partials:
                partial.keep()


def _batches(own: Ranges, total: int, image_batches: Callable[..., Iterable[Tensor]]) -> Iterator[tuple[int, Tensor]]:
    """(first record, pictures) of the records in ranges."""
    for start, end in own:
        # Without arguments where there is nothing to leave out: callers whose pictures come in one piece need not be able to.
        for images_BCHW in image_batches() if (start, end) == (0, total) else image_batches(start, end):
            yield start, images_BCHW
            start += len(images_BCHW)


def _features(encoder: FeatureEncoder, cache: FeatureCache, start: int, images_BCHW: Tensor) -> dict[str, np.ndarray]:
    """The encoder's features as the cache keeps them, float32 (B, ...). Raises ValueError for a wrong shape and for what is not finite."""
    with torch.no_grad():
        encoded = encoder.encode(images_BCHW)
    features = {}
    for feature, shape in cache.shapes.items():
        values = encoded[feature].detach().float().cpu().numpy()
        if values.shape != (len(images_BCHW), *shape):
            raise ValueError(f"encoder {encoder.name}: {feature} has shape {values.shape[1:]}, not {shape}")
        if not np.isfinite(values).all():
            at = start + int(np.argwhere(~np.isfinite(values))[0][0])
            raise ValueError(f"encoder {encoder.name}: {feature} of picture {at} is not finite; use a wider dtype or check its weights")
        features[feature] = values
    return features

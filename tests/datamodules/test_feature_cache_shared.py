"""A feature cache that several processes write together is the one that one process writes, and what a killed one had done is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules.feature_cache.building import encode_beside, open_or_build
from datamodules.feature_cache.cache import FeatureCache
from datamodules.feature_cache.ranges import covers, length, merged, missing, part_of

PICTURES = torch.linspace(-1, 1, 40 * 3 * 8 * 8).view(40, 3, 8, 8)


class Brightness:
    """An encoder that notes how many pictures it sees."""

    name, digest = "brightness", "1"

    def __init__(self):
        self.seen = 0

    def shapes(self):
        return {"mean": (2,)}

    def encode(self, images_BCHW):
        self.seen += len(images_BCHW)
        means = images_BCHW.mean(dim=(1, 2, 3))
        return {"mean": torch.stack([means, images_BCHW[:, 0, 0, 0]], dim=1)}


def cache_in(folder):
    return FeatureCache(folder, "brightness", "1", {"mean": (2,)}, len(PICTURES), "pictures", 8, True)


def batches(start=0, end=None):
    return PICTURES[start:end].split(4)


def plain(items, total, what):
    return items


def build(folder, encoder, together=None):
    folder.mkdir(exist_ok=True)
    cache = cache_in(folder)
    open_or_build([cache], [encoder], batches, plain, lambda line: None, together=together)
    assert cache.is_valid(full=True)
    return cache


@pytest.mark.parametrize("count", [2, 3, 7])
def test_several_processes_write_what_one_writes_and_each_its_share(tmp_path, count):
    encoders = [Brightness() for _ in range(count)]

    def together(lacking, own):
        for rank in range(1, count):
            encode_beside([cache_in(tmp_path / "shared")], [encoders[rank]], batches, lacking, (rank, count))
        own(count)

    alone, shared = build(tmp_path / "alone", Brightness()), build(tmp_path / "shared", encoders[0], together)
    assert (alone.folder / "mean.npy").read_bytes() == (shared.folder / "mean.npy").read_bytes()
    shares = [encoder.seen / 2 for encoder in encoders]  # plain and mirrored
    assert sum(shares) == len(PICTURES) and max(shares) - min(shares) <= 1
    assert sorted(path.name for path in shared.folder.iterdir()) == ["mean.npy", "mean.rows.npy", "meta.json"]


class Killed(BaseException):
    pass


def test_what_all_of_them_had_done_is_not_encoded_again_by_however_many(tmp_path):
    first = Brightness()

    def interrupted(lacking, own):
        encode_beside([cache_in(tmp_path)], [first], batches, lacking, (1, 2))
        raise Killed

    with pytest.raises(Killed):
        build(tmp_path, Brightness(), interrupted)
    assert first.seen == 2 * 20
    last = Brightness()
    cache = build(tmp_path, last)
    assert last.seen == 2 * 20
    rows = cache.rows(np.zeros(40, dtype=np.int64), np.arange(40))["mean"]
    assert torch.equal(rows, Brightness().encode(PICTURES)["mean"])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_parts_cover_what_is_missing_once_and_are_equally_long(count):
    done = merged([(30, 40), (3, 5), (4, 9), (9, 12), (70, 70)])
    assert done == [(3, 12), (30, 40)]
    lacking = missing(done, 100)
    assert lacking == [(0, 3), (12, 30), (40, 100)]
    parts = [part_of(lacking, rank, count) for rank in range(count)]
    rows = [row for part in parts for start, end in part for row in range(start, end)]
    assert rows == [row for start, end in lacking for row in range(start, end)]
    assert max(map(length, parts)) - min(map(length, parts)) <= 1
    assert covers(done, 4, 12) and not covers(done, 4, 13)

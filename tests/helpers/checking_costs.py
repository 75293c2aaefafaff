"""What it costs to compare files with their digests: seconds of one core, with the comparison and without it.

`PYTHONPATH=. python tests/helpers/checking_costs.py` measures a cache of 81,910 rows, a batch of it, and a checkpoint, at the sizes of
both profiles; the paper profile's cache is a part of 2,000 rows, and its numbers are for so many.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ablations.cell.training.checkpoints import _WholeFiles, read_checkpoint
from datamodules.feature_cache.building import open_or_build
from datamodules.feature_cache.cache import FeatureCache

CFP_ROWS, BATCH, TRIES = 81_910, 64, 7
TINY = {"latent_mean": (4, 8, 8), "latent_logvar": (4, 8, 8), "image_vectors": (17, 64), "image_pooled": (64,)}
PAPER = {"latent_mean": (4, 64, 64), "latent_logvar": (4, 64, 64), "image_vectors": (17, 1024), "image_pooled": (1024,)}


class _Encoder:
    """Features of the right shapes, cheaply."""

    name, digest = "features", "weights"

    def __init__(self, shapes: dict[str, tuple[int, ...]]):
        self._shapes = shapes

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self._shapes

    def encode(self, images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: images_BCHW.mean(dim=(1, 2, 3)).reshape(-1, *[1] * len(s)).expand(-1, *s) for name, s in self._shapes.items()}


def cpu_seconds(action: Callable[[], object]) -> float:
    """The least of some tries, after one."""
    times = []
    action()
    for _ in range(TRIES):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return min(times)


def of_cache(shapes: dict[str, tuple[int, ...]], rows: int, folder: Path) -> None:
    """Print what opening, and reading a batch of random rows, cost."""
    cache, encoder = FeatureCache(folder, "features", "weights", shapes, rows, "pictures", 64, True), _Encoder(shapes)
    pictures = torch.rand(256, 3, 2, 2)

    def batches(start: int = 0, end: int | None = None):
        for first in range(start, rows if end is None else end, len(pictures)):
            yield pictures[: min(len(pictures), (rows if end is None else end) - first)]

    open_or_build([cache], [encoder], batches, lambda items, total, what: items, lambda line: None)
    rng = np.random.default_rng(0)
    which = rng.integers(2, size=BATCH), rng.choice(rows, BATCH, replace=False)
    whole, sizes = cpu_seconds(cache.is_ready), cpu_seconds(cache.is_valid)
    every = cpu_seconds(lambda: cache.is_valid(full=True))
    compared = cpu_seconds(lambda: cache.rows(*which))
    cache._digests = {}
    alone = cpu_seconds(lambda: cache.rows(*which))
    print(f"cache of {rows} rows, {cache.num_bytes() / 1e6:.0f} MB: opening {1e3 * sizes:.1f} ms by sizes and digests of digests,")
    print(f"  {1e3 * every:.0f} ms with every row compared; as it is opened: {1e3 * whole:.1f} ms")
    print(f"  a batch of {BATCH} rows: {1e3 * alone:.3f} ms before, {1e3 * compared:.3f} ms with digests compared")


def of_checkpoint(parameters: int, folder: Path) -> None:
    """Print what reading all tensors of a checkpoint costs."""
    path = folder / "final.ckpt"
    content = {"state_dict": {"weight": torch.randn(parameters)}, "global_step": 3, "made_from": {}}
    _WholeFiles().save_checkpoint(content, path)
    compared = cpu_seconds(lambda: read_checkpoint(path)["state_dict"]["weight"].sum())
    (folder / "final.ckpt.sha256").unlink()
    alone = cpu_seconds(lambda: read_checkpoint(path)["state_dict"]["weight"].sum())
    size = path.stat().st_size / 1e6
    print(f"checkpoint of {size:.0f} MB: {1e3 * alone:.1f} ms before, {1e3 * compared:.1f} ms with its digest compared")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as there:
        of_cache(TINY, CFP_ROWS, Path(there))
        of_cache(PAPER, 2000, Path(there) / "paper")
        of_checkpoint(1_000_000, Path(there))
        of_checkpoint(100_000_000, Path(there))

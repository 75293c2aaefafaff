"""Scores that were computed before, by metric and picture."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ablations.results.made_by import folder_of, write_made_by
from ablations.runtime.errors import one_line
from ablations.runtime.files import whole_file

logger = logging.getLogger(__name__)

# Of one metric; more are read from their files again.
_BYTES_IN_MEMORY = 128 * 2**20
# Looking for other processes' scores may take no more than this share of the time: a large evaluation has thousands of files.
_LOOKING_SHARE = 0.02
_QUICK_S = 0.01


class ScoreStore:
    """Scores by metric and key, in .npz files that are written once; without a root it keeps them in memory alone.

    `reused` counts the rows that were not computed. Rows that are in a file are forgotten when there are many (embeddings of all pictures
    would not fit), and read again when they are asked for.
    """

    def __init__(self, root: Path | None, made_by: Mapping[str, object]):
        self.folder = folder_of(Path(root) / "scores", made_by) if root is not None else None
        self.reused = 0
        self._made_by, self._is_ready = dict(made_by), False
        self._in_memory: dict[str, dict[str, np.ndarray]] = {}
        self._in_files: dict[str, dict[str, Path]] = {}
        self._seen: set[str] = set()
        self._look_again: dict[str, float] = {}

    def remember(self, metric: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The rows of `metric` for `keys`, float64 (len(keys), D); equal keys have equal rows.

        `compute(positions)` gives the rows (M, D), or (M,), of the positions in `keys` that are not known; none is asked for twice.
        """
        known = {key: row for key in set(keys) if (row := self._in_memory.setdefault(metric, {}).get(key)) is not None}
        known |= self._from_files(metric, set(keys) - set(known))
        missing = {key: position for position, key in reversed(list(enumerate(keys))) if key not in known}
        self.reused += len(set(keys)) - len(missing)
        if missing:
            positions = np.array(sorted(missing.values()))
            rows = np.asarray(compute(positions), dtype=np.float64).reshape(len(positions), -1)
            found = [keys[position] for position in positions]
            known |= zip(found, rows, strict=True)
            self._write(metric, found, rows)
        self._keep(metric, known)
        return np.stack([known[key] for key in keys])

    def _keep(self, metric: str, rows: Mapping[str, np.ndarray]) -> None:
        kept = self._in_memory[metric]
        kept.update(rows)
        if self.folder is not None and kept:
            most = max(1, _BYTES_IN_MEMORY // next(iter(rows.values())).nbytes)
            for key in list(kept)[: max(0, len(kept) - most)]:
                del kept[key]

    def _from_files(self, metric: str, keys: set[str]) -> dict[str, np.ndarray]:
        """Those of the rows that files have."""
        if self.folder is None or not keys:
            return {}
        self._look_for_new(metric)
        places = self._in_files.setdefault(metric, {})
        found: dict[str, np.ndarray] = {}
        for path in dict.fromkeys(places[key] for key in sorted(keys) if key in places):
            shard = _read_shard(path, metric)
            if shard is None:
                self._in_files[metric] = places = {key: place for key, place in places.items() if place != path}
            else:
                found |= {key: row for key, row in zip(shard[0], shard[1], strict=True) if key in keys}
        return found

    def _look_for_new(self, metric: str) -> None:
        """Note the keys of files that were not here when it was last looked, which is not done all the time."""
        started = time.monotonic()
        if started < self._look_again.get(metric, -math.inf):
            return
        for path in sorted(self.folder.glob(f"{metric}-*.npz")):
            # A metric's name may begin with another one's: embedding, embedding-tiny.
            if path.name in self._seen or path.name.rsplit("-", 2)[0] != metric:
                continue
            self._seen.add(path.name)
            shard = _read_shard(path, metric)
            if shard is not None:
                self._in_files.setdefault(metric, {}).update(dict.fromkeys(shard[0], path))
        ended = time.monotonic()
        took = ended - started
        self._look_again[metric] = ended + (took / _LOOKING_SHARE if took > _QUICK_S else 0.0)

    def _write(self, metric: str, keys: list[str], rows: np.ndarray) -> None:
        if self.folder is None:
            return
        if not self._is_ready:
            write_made_by(self.folder, self._made_by)
            self._is_ready = True
        path = self.folder / f"{metric}-{os.getpid()}-{secrets.token_hex(6)}.npz"
        self._seen.add(path.name)
        with whole_file(path, sync=False) as aside:
            np.savez(aside, keys=np.array(keys), rows=rows, digest=np.array(_digest_of(metric, keys, rows)))
        self._in_files.setdefault(metric, {}).update(dict.fromkeys(keys, path))


def _read_shard(path: Path, metric: str) -> tuple[list[str], np.ndarray] | None:
    """The keys and rows of a file; None, with a warning, where it cannot be read or is not what was written for this metric."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as shard:
            keys, rows, digest = shard["keys"].tolist(), shard["rows"], str(shard["digest"])
        if digest != _digest_of(metric, keys, rows):
            raise ValueError("its rows are not those that were written")
        return keys, rows
    except Exception as error:  # a torn file has as many errors as it has bytes
        logger.warning("%s cannot be read (%s): its scores are computed again", path, one_line(error)[:160])
        return None


def _digest_of(metric: str, keys: Sequence[str], rows: np.ndarray) -> str:
    sha = hashlib.sha256(json.dumps([metric, list(keys), rows.shape, str(rows.dtype)]).encode())
    sha.update(np.ascontiguousarray(rows).tobytes())
    return sha.hexdigest()

"""Scores that were computed before, by metric and picture."""

from __future__ import annotations

import logging
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ablations.results.made_by import folder_of
from ablations.runtime.files import whole_file, write_json

logger = logging.getLogger(__name__)


class ScoreStore:
    """Scores by metric and key, in .npz files that are written once; without a root it keeps them in memory alone.

    `reused` counts the rows that were not computed.
    """

    def __init__(self, root: Path | None, made_by: Mapping[str, object]):
        self.folder = folder_of(Path(root) / "scores", made_by) if root is not None else None
        self.reused = 0
        self._made_by = dict(made_by)
        self._known: dict[str, dict[str, np.ndarray]] = {}
        self._read: set[str] = set()

    def remember(self, metric: str, keys: Sequence[str], compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The rows of `metric` for `keys`, float64 (len(keys), D); equal keys have equal rows.

        `compute(positions)` gives the rows (M, D), or (M,), of the positions in `keys` that are not known; none is asked for twice.
        """
        known = self._known.setdefault(metric, {})
        if self.folder is not None:
            self._read_new(metric)
        missing = {key: position for position, key in reversed(list(enumerate(keys))) if key not in known}
        self.reused += len(set(keys)) - len(missing)
        if missing:
            positions = np.array(sorted(missing.values()))
            rows = np.asarray(compute(positions), dtype=np.float64).reshape(len(positions), -1)
            found = [keys[position] for position in positions]
            known.update(zip(found, rows, strict=True))
            self._write(metric, found, rows)
        return np.stack([known[key] for key in keys])

    def _read_new(self, metric: str) -> None:
        assert self.folder is not None
        for path in sorted(self.folder.glob(f"{metric}-*.npz")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            try:
                with np.load(path, allow_pickle=False) as shard:
                    self._known[metric].update(zip(shard["keys"].tolist(), shard["rows"], strict=True))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
                logger.warning("%s cannot be read (%s): its scores are computed again", path, error)

    def _write(self, metric: str, keys: list[str], rows: np.ndarray) -> None:
        if self.folder is None:
            return
        if not (self.folder / "made_by.json").exists():
            write_json(self.folder / "made_by.json", self._made_by)
        path = self.folder / f"{metric}-{os.getpid()}-{secrets.token_hex(6)}.npz"
        self._read.add(path.name)
        with whole_file(path, sync=False) as aside:
            np.savez(aside, keys=np.array(keys), rows=rows)

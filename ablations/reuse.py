"""Pictures and scores that were made before, kept by what made them, so that nothing is drawn or scored twice.

The coarse and the fine prompts' pictures are the same in all arms of a seed, rewritten prompts' in all prompt lengths of a training,
and so on. A picture is kept under its text, its image noise and its text encoder, in a folder that stands for everything else that its
pixels depend on: frozen weights, sampling settings, batch size, device, threads, library versions and the code that draws. Scores are
kept under the picture's own bytes. So deleting the folder costs time and changes no result.

That holds because batches are always full: the pixels of a picture depend, by a rounding, on how many are drawn at a time (seen on a
CPU: 7 of 64 pictures differ by one level between batches of 8 and 16), but not on which others share its batch nor on its place in it.

OUTPUT_DIR/cache/pictures/MADE_BY/ab/abcdef...png      OUTPUT_DIR/cache/scores/MADE_BY/METRIC-....npz
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ablations.run_folder import whole_file, write_json

_FORMAT = 1
logger = logging.getLogger(__name__)


def digest_of_code(*paths: Path) -> str:
    """A digest of files, and of the Python files in folders, by content: changed code makes other results."""
    files = [file for path in paths for file in (sorted(path.glob("*.py")) if path.is_dir() else [path])]
    sha = hashlib.sha256()
    for file in files:
        sha.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()[:16]


def picture_key(pixels: np.ndarray) -> str:
    """A digest of a picture's pixels and size."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


def full_batches(items: np.ndarray, size: int) -> list[tuple[np.ndarray, int]]:
    """`items` in batches of exactly `size`, each with the number of items that count: the last is filled up with copies of its last."""
    batches = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        filler = np.repeat(part[-1:], size - len(part), axis=0)
        batches.append((np.concatenate([part, filler]) if len(filler) else part, len(part)))
    return batches


def _folder(root: Path, made_by: Mapping[str, object]) -> Path:
    content = json.dumps({"format": _FORMAT, **made_by}, sort_keys=True, default=str)
    return root / hashlib.sha256(content.encode()).hexdigest()[:16]


class PictureStore:
    """Pictures by (text encoder, text, image noise), one PNG each, under the digest of `made_by`; `reused` counts what was found."""

    def __init__(self, root: Path, made_by: Mapping[str, object]):
        self.folder = _folder(Path(root) / "pictures", made_by)
        self.reused = 0
        self._made_by = dict(made_by)

    def _path(self, encoder: str, text: str, image_seed: int) -> Path:
        name = hashlib.sha256(json.dumps([encoder, text, image_seed]).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.png"

    def get(self, encoder: str, text: str, image_seed: int) -> np.ndarray | None:
        """The picture, uint8 (H, W, 3), or None where it was not drawn before."""
        path = self._path(encoder, text, image_seed)
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except FileNotFoundError:
            return None
        except (OSError, UnidentifiedImageError) as error:
            logger.warning("%s cannot be read (%s): the picture is drawn again", path, error)
            return None
        self.reused += 1
        return pixels

    def put(self, encoder: str, text: str, image_seed: int, pixels: np.ndarray) -> None:
        """Keep a picture. Raises RunFolderError where it cannot be written."""
        if not (self.folder / "made_by.json").exists():
            write_json(self.folder / "made_by.json", self._made_by)
        with whole_file(self._path(encoder, text, image_seed), sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")


class ScoreStore:
    """Scores by metric and key, in .npz files that are written once; without a root it keeps them in memory alone.

    `reused` counts the rows that were not computed.
    """

    def __init__(self, root: Path | None, made_by: Mapping[str, object]):
        self.folder = _folder(Path(root) / "scores", made_by) if root is not None else None
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

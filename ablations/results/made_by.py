"""What decides about a picture or a score, as digests: of code, of pixels, and of everything else that it was made by.

By these, pictures and scores that were made before are found again, so that nothing is drawn or scored twice. The coarse and the fine
prompts' pictures are the same in all arms of a seed, rewritten prompts' in all prompt lengths of a training, and so on. A picture is
kept under its text, its image noise and its text encoder, in a folder that stands for everything else that its pixels depend on: frozen
weights, sampling settings, batch size, device, threads, library versions and the code that draws. Scores are kept under the picture's
own bytes. So deleting the folder costs time and changes no result.

That holds because batches are always full: the pixels of a picture depend, by a rounding, on how many are drawn at a time (seen on a
CPU: 7 of 64 pictures differ by one level between batches of 8 and 16), but not on which others share its batch nor on its place in it.

OUTPUT_DIR/cache/pictures/MADE_BY/ab/abcdef...png      OUTPUT_DIR/cache/scores/MADE_BY/METRIC-....npz
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ablations.runtime.files import write_json
from datamodules.files import clear_dead

# Networks score so many pictures or texts at a time, always: see the top.
AT_ONCE = 16
_FORMAT = 1


def digest_of_code(*paths: Path) -> str:
    """A digest of files, and of the Python files in folders and their sub-folders: changed code makes other results.

    By content and by place, from the given folder's own name on: a file that moves or is renamed counts as changed.
    """
    files = [(path, file) for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    sha = hashlib.sha256()
    for path, file in files:
        sha.update(file.relative_to(path.parent).as_posix().encode() + hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()[:16]


def picture_key(pixels: np.ndarray) -> str:
    """A digest of a picture's pixels and size."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()[:32]


def text_key(text: str) -> str:
    """A digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def full_batches(items: np.ndarray, size: int) -> list[tuple[np.ndarray, int]]:
    """`items` in batches of exactly `size`, each with the number of items that count: the last is filled up with copies of its last."""
    batches = []
    for start in range(0, len(items), size):
        part = items[start : start + size]
        filler = np.repeat(part[-1:], size - len(part), axis=0)
        batches.append((np.concatenate([part, filler]) if len(filler) else part, len(part)))
    return batches


def folder_of(root: Path, made_by: Mapping[str, object]) -> Path:
    """The folder within `root` of what was made so."""
    content = json.dumps({"format": _FORMAT, **made_by}, sort_keys=True, default=str)
    return root / hashlib.sha256(content.encode()).hexdigest()[:16]


def write_made_by(folder: Path, made_by: Mapping[str, object]) -> None:
    """Make the folder ready to be written to: what it stands for is in made_by.json, and what killed processes left is gone.

    Raises RunFolderError where it cannot be written.
    """
    if not (folder / "made_by.json").exists():
        write_json(folder / "made_by.json", made_by)
    for below in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        clear_dead(below)

"""Pictures of records: rendered or read, brought to size, and known by a digest of their content.

Shapes: B = batch, H W = image height and width, 3 = RGB.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.decoding import AS_BARE_CONVERSION, DAMAGE, UnfitPictureError, as_viewed, examine
from datamodules.files import write_atomically
from datamodules.progress import track
from datamodules.readers.image_finder import NO_IMAGE_NAMED
from datamodules.readers.record_parser import ReadTable
from datamodules.records import BadRecord, CFPRecord
from datamodules.stored_images import NO_IMAGE, NoImageError, PictureFile
from datamodules.tiny_world import renderer, subjects

# Part of every feature cache's key: raise it when a change here changes the pixels of every picture, rendered ones too.
PREPROCESSING = "shorter side to size, bilinear, centre crop, [-1, 1]; 1"
# Part of the digest of every picture to which more is done than a bare conversion to RGB, and of what the ledger remembers: raise it
# when a change in `datamodules.decoding` changes pixels, or what is a picture. 1 was the bare conversion, whose digests have no number.
DECODING = 2


def _source_digest() -> str:
    """Digest of the renderer's source, so that features of pictures drawn by another renderer are never used."""
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in (renderer, subjects))).hexdigest()[:16]


def resize_and_crop(picture: Image.Image, image_size: int) -> Image.Image:
    """Shorter side to `image_size` (bilinear), then the central square, as the authors prepared their training images."""
    width, height = picture.size
    if min(width, height) != image_size:
        scale = image_size / min(width, height)
        picture = picture.resize((max(image_size, round(width * scale)), max(image_size, round(height * scale))), Image.Resampling.BILINEAR)
        width, height = picture.size
    left, top = (width - image_size) // 2, (height - image_size) // 2
    return picture.crop((left, top, left + image_size, top + image_size))


def load_pixels(record: CFPRecord, image_size: int) -> np.ndarray:
    """The record's picture: uint8 (image_size, image_size, 3). Raises ValueError, naming record and file, if it cannot be read."""
    if record.scene is not None:
        pixels = renderer.render(record.scene)
        return pixels if pixels.shape[0] == image_size else np.asarray(resize_and_crop(Image.fromarray(pixels), image_size))
    assert record.image is not None
    try:
        return np.asarray(resize_and_crop(as_viewed(record.image.read_bytes(), image_size), image_size))
    except (*DAMAGE, MemoryError) as error:
        raise ValueError(f"record {record.id}: image {record.image} can no longer be read ({error})") from error


def to_unit_range(pixels: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


class Checked(NamedTuple):
    """What is wrong with a picture, or the digest of what it shows and what decoding does to it."""

    problem: str
    digest: str = ""
    done: tuple[str, ...] = ()


class ImageChecker:
    """Decodes every picture once: what is wrong with it, or the digest of its bytes.

    What was found is kept in `ledger` (JSON, optional) with size and time of the file, so that the next run of a sweep
    reads no picture that has not changed.
    """

    def __init__(self, ledger: Path | None, say: Callable[[str], None]):
        self._ledger, self._say = ledger, say

    def check(self, paths: list[PictureFile]) -> dict[PictureFile, Checked]:
        """What was found of each picture. A ledger that cannot be written costs a line, and the next run the same work."""
        known = self._read_ledger()
        stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
        found = {path: checked for path, stamp in stamps.items() if (checked := _recalled(known.get(str(path)), stamp)) is not None}
        todo = [path for path in stamps if path not in found]
        if todo:
            with ThreadPoolExecutor() as pool:
                for path, result in zip(todo, track(pool.map(_inspect, todo), len(todo), "checking images", self._say), strict=True):
                    found[path] = result
            # What another disk may bring, or more memory, is looked at again.
            lasting = {path: found[path] for path in todo if stamps[path] and not found[path].problem.startswith(_PASSING)}
            self._keep({**known, **{str(path): [stamps[path], list(checked)] for path, checked in lasting.items()}})
        return found

    def _read_ledger(self) -> dict:
        try:
            known = json.loads(self._ledger.read_bytes()) if self._ledger is not None else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def _keep(self, known: dict) -> None:
        try:
            if self._ledger is not None:
                write_atomically(self._ledger, json.dumps(known).encode())
        except OSError as error:
            self._say(f"data: cannot write {self._ledger} ({error.strerror or error}): the next run checks these pictures again")


_NO_MEMORY = "there was no memory to decode it"
_NOT_READ = "its file cannot be read"
_PASSING = (_NO_MEMORY, _NOT_READ, NO_IMAGE + ":")


def count_done(checked: Iterable[Checked]) -> dict[str, int]:
    """How many pictures had each thing done to them, most frequent first."""
    return dict(Counter(kind for found in checked if not found.problem for kind in found.done).most_common())


def _recalled(entry: object, stamp: list[int]) -> Checked | None:
    """What the ledger remembers of a picture of this stamp; None if nothing that can be used."""
    try:
        known_stamp, (problem, digest, done) = entry  # type: ignore[misc]
    except (TypeError, ValueError):
        return None
    return Checked(problem, digest, tuple(done)) if stamp and known_stamp == stamp else None


def _stamp(path: PictureFile) -> list[int]:
    """Size and time of a picture's file, and the number of the decoding; empty for a file that is not there."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns, DECODING]


def _inspect(path: PictureFile) -> Checked:
    try:
        content = path.read_bytes()
    except NoImageError as error:
        return Checked(str(error))
    except DAMAGE as error:
        return Checked(f"{_NOT_READ} ({getattr(error, 'strerror', None) or error})".replace(str(path), path.name)[:200])
    try:
        done = examine(content)
    except UnfitPictureError as error:
        return Checked(str(error))
    except MemoryError:
        return Checked(_NO_MEMORY)
    except DAMAGE as error:
        return Checked(f"{type(error).__name__}: {error}"[:200])
    number = str(DECODING).encode() if set(done) - AS_BARE_CONVERSION else b""
    return Checked("", hashlib.blake2b(content, digest_size=16, person=number).hexdigest(), done)


def content_digest(record: CFPRecord, image_digests: dict[PictureFile, str]) -> str:
    """Digest of what the record's picture shows; empty for a record without one."""
    if record.scene is not None:
        scene = json.dumps(asdict(record.scene), sort_keys=True)
        return hashlib.blake2b((_SOURCE_DIGEST + scene).encode(), digest_size=16).hexdigest()
    return image_digests.get(record.image, "") if record.image is not None else ""


_SOURCE_DIGEST = _source_digest()


def check_images(
    table: ReadTable, ledger: Path | None, say: Callable[[str], object]
) -> tuple[list[CFPRecord], list[BadRecord], dict[PictureFile, Checked]]:
    """The records whose pictures can be read, those left out with the reason, and what was found of every picture."""
    found = ImageChecker(ledger, say).check([record.image for record in table.records if record.image is not None])
    records, bad = [], list(table.bad)
    for record in table.records:
        if record.image is None:
            bad.append(BadRecord(record.id, 0, "missing_image", table.missing.get(record.id, NO_IMAGE_NAMED)))
        elif problem := found[record.image].problem:
            reason = "missing_image" if problem.startswith(NO_IMAGE) else "corrupt_image"
            bad.append(BadRecord(record.id, 0, reason, f"{record.image.name}: {problem}"))
        else:
            records.append(record)
    return records, bad, found

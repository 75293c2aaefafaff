"""Pictures of records: rendered or read, brought to size, and known by a digest of their content.

Shapes: B = batch, H W = image height and width, 3 = RGB.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from datamodules.files import write_atomically
from datamodules.progress import track
from datamodules.records import CFPRecord
from datamodules.stored_images import NoImageError, PictureFile
from datamodules.tiny_world import renderer, subjects

# Part of every feature cache's key: raise it when a change here changes pixels.
PREPROCESSING = "shorter side to size, bilinear, centre crop, [-1, 1]; 1"
# What Pillow raises for damaged files; Warning where warnings are errors.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError)
_DAMAGE += (struct.error, zlib.error, Image.DecompressionBombError, Warning)


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
    try:
        with Image.open(BytesIO(record.image.read_bytes())) as picture:  # type: ignore[union-attr]
            return np.asarray(resize_and_crop(picture.convert("RGB"), image_size))
    except _DAMAGE as error:
        raise ValueError(f"record {record.id}: image {record.image} can no longer be read ({error})") from error


def to_unit_range(pixels: np.ndarray) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1.0)


class ImageChecker:
    """Decodes every picture once: what is wrong with it, or the digest of its bytes.

    What was found is kept in `ledger` (JSON, optional) with size and time of the file, so that the next run of a sweep
    reads no picture that has not changed.
    """

    def __init__(self, ledger: Path | None, say: Callable[[str], None]):
        self._ledger, self._say = ledger, say

    def check(self, paths: list[PictureFile]) -> dict[PictureFile, tuple[str, str]]:
        """For each picture ("", digest), or (what is wrong, "")."""
        known = self._read_ledger()
        stamps = {path: _stamp(path) for path in dict.fromkeys(paths)}
        found = {path: tuple(known[str(path)][1]) for path, stamp in stamps.items() if known.get(str(path), [None])[0] == stamp}
        todo = [path for path in stamps if path not in found]
        if todo:
            with ThreadPoolExecutor() as pool:
                for path, result in zip(todo, track(pool.map(_inspect, todo), len(todo), "checking images", self._say), strict=True):
                    found[path] = result
            if self._ledger is not None:
                kept = {**known, **{str(path): [stamps[path], list(found[path])] for path in todo}}
                write_atomically(self._ledger, json.dumps(kept).encode())
        return found  # type: ignore[return-value]

    def _read_ledger(self) -> dict:
        try:
            return json.loads(self._ledger.read_bytes()) if self._ledger is not None else {}
        except (OSError, ValueError):
            return {}


def _stamp(path: PictureFile) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _inspect(path: PictureFile) -> tuple[str, str]:
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as picture:
            picture.load()
    except UnidentifiedImageError:
        return "not a picture", ""
    except NoImageError as error:
        return str(error), ""
    except _DAMAGE as error:
        return f"{type(error).__name__}: {error}".replace(str(path), path.name)[:200], ""
    return "", hashlib.blake2b(content, digest_size=16).hexdigest()


def content_digest(record: CFPRecord, image_digests: dict[PictureFile, str]) -> str:
    """Digest of what the record's picture shows; empty for a record without one."""
    if record.scene is not None:
        scene = json.dumps(asdict(record.scene), sort_keys=True)
        return hashlib.blake2b((_SOURCE_DIGEST + scene).encode(), digest_size=16).hexdigest()
    return image_digests.get(record.image, "") if record.image is not None else ""


_SOURCE_DIGEST = _source_digest()

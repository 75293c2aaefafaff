"""Pictures that lie on the disk and are read when they are asked for: memory does not grow with their number.

A picture that we write has a digest of its pixels and its name in it, as a text that viewers pass over; it is compared when we read it.
Loads numpy and Pillow where they are needed alone.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from ablations.results.left_files import leaves_digests
from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import whole_file

if TYPE_CHECKING:
    import numpy as np


# The name of the text in a PNG, and where it goes: behind the signature and the header.
_DIGEST, _HEAD = "digest", 33


class PictureFiles:
    """N pictures of one size, uint8 (N, H, W, 3), as files.

    Indexed as an array is: a number gives a picture (H, W, 3), a slice or numbers give several (M, H, W, 3), in memory. Raises UserError,
    naming the file, for one that is not there, cannot be read, or has another size than the first.
    """

    def __init__(self, paths: Sequence[Path]):
        self._paths = list(paths)
        self._size: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3), by the first picture; (0, 1, 1, 3) where there is none."""
        if not self._paths:
            return 0, 1, 1, 3
        if self._size is None:
            self[0]
        height, width, channels = self._size
        return len(self._paths), height, width, channels

    @overload
    def __getitem__(self, which: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, which: slice | Sequence[int] | np.ndarray) -> np.ndarray: ...
    def __getitem__(self, which):
        import numpy as np

        if isinstance(which, (int, np.integer)):
            return self._read(self._paths[which])
        positions = range(len(self))[which] if isinstance(which, slice) else [int(i) for i in which]
        return np.stack([self[i] for i in positions]) if len(positions) else np.zeros((0, *self.shape[1:]), np.uint8)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def _read(self, path: Path) -> np.ndarray:
        try:
            pixels, is_compared = read_png(path)
            if not is_compared and leaves_digests(path.parent.parent):
                raise DamagedPictureError("it is not the picture that the cell left")
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing") from error
        except DamagedPictureError as error:
            raise UserError(f"{path} cannot be read ({error})") from error
        if self._size is None:
            self._size = pixels.shape
        if pixels.shape != self._size:
            raise UserError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} px, the first picture {self._size[1]} x {self._size[0]}")
        return pixels


class DamagedPictureError(ValueError):
    """A picture that cannot be read, or is not what was written. Its message is one line that does not name the file."""


def save_pixels(paths: Sequence[Path], pixels: np.ndarray) -> None:
    """Writes a picture, uint8 (H, W, 3), as PNG to each of the paths, each whole or not at all.

    Raises RunFolderError where one cannot be written.
    """
    from PIL import Image

    from ablations.results.made_by import picture_key

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    content, key = buffer.getvalue(), picture_key(pixels)
    for path in paths:
        text = b"tEXt" + _DIGEST.encode() + b"\0" + _digest_of(path, key).encode()
        chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
        with whole_file(path, sync=False) as aside:
            aside.write_bytes(content[:_HEAD] + chunk + content[_HEAD:])


def read_png(path: Path) -> tuple[np.ndarray, bool]:
    """A picture's pixels, uint8 (H, W, 3), and whether they were compared with a digest: one that others made has none.

    Raises FileNotFoundError, and DamagedPictureError for what is no picture, another picture than was written, or another's.
    """
    import numpy as np
    from PIL import Image

    from ablations.results.made_by import picture_key

    try:
        with Image.open(path) as image:
            wanted = image.info.get(_DIGEST)
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow has as many errors as a torn file has bytes
        raise DamagedPictureError(one_line(error).replace(str(path), path.name)[:160]) from error
    if wanted is not None and wanted != _digest_of(path, picture_key(pixels)):
        raise DamagedPictureError("its pixels are not those that were written")
    return pixels, wanted is not None


def _digest_of(path: Path, key: str) -> str:
    """By place, too: a picture in the place of another is no less wrong than a damaged one. Folders may be moved and renamed."""
    return hashlib.sha256(f"{path.name} {key}".encode()).hexdigest()[:32]

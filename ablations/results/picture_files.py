"""Pictures that lie on the disk and are read when they are asked for: memory does not grow with their number.

Loads numpy and Pillow where they are needed alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from ablations.runtime.errors import UserError, one_line
from ablations.runtime.files import whole_file

if TYPE_CHECKING:
    import numpy as np


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
        import numpy as np
        from PIL import Image

        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
        except FileNotFoundError as error:
            raise UserError(f"{path} is missing") from error
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises each of them for torn files
            raise UserError(f"{path} cannot be read ({one_line(error)})") from error
        if self._size is None:
            self._size = pixels.shape
        if pixels.shape != self._size:
            raise UserError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]} px, the first picture {self._size[1]} x {self._size[0]}")
        return pixels


def save_pixels(paths: Sequence[Path], pixels: np.ndarray) -> None:
    """Writes a picture, uint8 (H, W, 3), as PNG to each of the paths, each whole or not at all.

    Raises RunFolderError where one cannot be written.
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    for path in paths:
        with whole_file(path, sync=False) as aside:
            aside.write_bytes(buffer.getvalue())

"""Pictures that were drawn before, by text encoder, text and image noise."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ablations.cell.drawing.picture import Picture
from ablations.results.made_by import folder_of, write_made_by
from ablations.results.picture_files import DamagedPictureError, read_png, save_pixels

logger = logging.getLogger(__name__)


class PictureStore:
    """Pixels of pictures, one PNG each, under the digest of `made_by`; `reused` counts what was found.

    A picture that is damaged, or another's, is as good as not there: it is drawn again, and a warning says so.
    """

    def __init__(self, root: Path, made_by: Mapping[str, object]):
        self.folder = folder_of(Path(root) / "pictures", made_by)
        self.reused = 0
        self._made_by, self._is_ready = dict(made_by), False

    def _path(self, picture: Picture) -> Path:
        # By how it is drawn, too, so that no picture fits in the place of another.
        key = [self.folder.name, picture.encoder, picture.text, picture.image_seed]
        name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.png"

    def get(self, picture: Picture) -> np.ndarray | None:
        """The pixels, uint8 (H, W, 3), or None where the picture was not drawn before."""
        path = self._path(picture)
        try:
            pixels, is_ours = read_png(path)
            if not is_ours:
                raise DamagedPictureError("it has no digest")
        except FileNotFoundError:
            return None
        except DamagedPictureError as error:
            logger.warning("%s cannot be read (%s): the picture is drawn again", path, error)
            return None
        self.reused += 1
        return pixels

    def put(self, picture: Picture, pixels: np.ndarray) -> None:
        """Keep a picture's pixels. Raises RunFolderError where it cannot be written."""
        if not self._is_ready:
            write_made_by(self.folder, self._made_by)
            self._is_ready = True
        save_pixels([self._path(picture)], pixels)

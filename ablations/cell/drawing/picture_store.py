"""Pictures that were drawn before, by text encoder, text and image noise."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ablations.cell.drawing.picture import Picture
from ablations.results.made_by import folder_of
from ablations.runtime.files import whole_file, write_json

logger = logging.getLogger(__name__)


class PictureStore:
    """Pixels of pictures, one PNG each, under the digest of `made_by`; `reused` counts what was found."""

    def __init__(self, root: Path, made_by: Mapping[str, object]):
        self.folder = folder_of(Path(root) / "pictures", made_by)
        self.reused = 0
        self._made_by = dict(made_by)

    def _path(self, picture: Picture) -> Path:
        name = hashlib.sha256(json.dumps([picture.encoder, picture.text, picture.image_seed]).encode()).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.png"

    def get(self, picture: Picture) -> np.ndarray | None:
        """The pixels, uint8 (H, W, 3), or None where the picture was not drawn before."""
        path = self._path(picture)
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

    def put(self, picture: Picture, pixels: np.ndarray) -> None:
        """Keep a picture's pixels. Raises RunFolderError where it cannot be written."""
        if not (self.folder / "made_by.json").exists():
            write_json(self.folder / "made_by.json", self._made_by)
        with whole_file(self._path(picture), sync=False) as aside:
            Image.fromarray(pixels).save(aside, format="PNG")

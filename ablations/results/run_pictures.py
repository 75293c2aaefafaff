"""Pictures out of run folders, for a report: those of somebody else may be anything, or anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ablations.results.looking import MissingPicture, picture_within
from ablations.runtime.errors import one_line
from ablations.runtime.foreign import readable
from datamodules.decoding import DAMAGE

if TYPE_CHECKING:
    from PIL import Image

# A picture of a run is some megapixels at most; a larger one may be made to fill the memory.
LARGEST_PICTURE = 64 * 1024 * 1024


def read_picture(folder: Path, name: str) -> Image.Image:
    """A picture that a run folder names, in memory as RGB.

    Raises MissingPicture as `picture_within` does, and for a file that is no PNG, is damaged or has more than LARGEST_PICTURE pixels.
    """
    from PIL import Image

    path, shown = picture_within(folder, name), f"{readable(name)!r:.100}"
    try:
        with Image.open(path, formats=("PNG",)) as opened:
            if opened.width * opened.height <= LARGEST_PICTURE:
                return opened.convert("RGB")
            problem = f"too large: {opened.width} x {opened.height} px"
    except (*DAMAGE, MemoryError) as error:
        raise MissingPicture(f"{shown} cannot be read ({type(error).__name__}: {one_line(error)[:100]})") from error
    raise MissingPicture(f"{shown} is {problem}")

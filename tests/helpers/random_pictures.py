"""Random pictures, seeded: modes x formats x orientations x transparency x ICC profiles x frames, with what a viewer shows of each.

`PYTHONPATH=. python tests/helpers/random_pictures.py 2000` tries so many and prints how many were tried and held.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from helpers.made_pictures import (
    DISPLAY_P3,
    SRGB,
    centres,
    encoded,
    exif,
    grey_profile,
    lying,
    on_white,
    quarters,
    rgb_profile,
    shown_by_grey_profile,
    shown_by_rgb_profile,
)

# Which formats keep a mode's samples as they are; those that lose some are allowed a difference.
FORMATS = {
    "1": ("PNG", "TIFF", "BMP", "PPM", "PCX"),
    "L": ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "TGA", "GIF", "PPM", "PCX", "SGI", "JPEG2000", "AVIF"),
    "LA": ("PNG", "TIFF", "TGA", "JPEG2000", "WEBP"),
    "P": ("PNG", "TIFF", "BMP", "GIF", "PCX", "TGA"),
    "P and alphas": ("PNG",),
    "P and a key": ("PNG", "GIF"),
    "L and a key": ("PNG", "GIF"),
    "RGB": ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "TGA", "PPM", "PCX", "SGI", "JPEG2000", "ICO", "QOI", "AVIF", "DDS", "MPO"),
    "RGB and a key": ("PNG",),
    "RGBA": ("PNG", "TIFF", "WEBP", "TGA", "JPEG2000", "ICO", "QOI", "DDS", "SGI", "AVIF"),
    "CMYK": ("JPEG", "TIFF"),
    "I;16": ("PNG", "TIFF", "PPM", "JPEG2000"),
    "F": ("TIFF", "PPM"),
}
LOSSY = ("JPEG", "AVIF", "MPO")
KEEP_EXIF = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO")
KEEP_PROFILE = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")
KEEP_FRAMES = ("GIF", "PNG", "WEBP", "TIFF")
TIFF_COMPRESSIONS = (None, "tiff_lzw", "tiff_adobe_deflate", "packbits")


@dataclass(frozen=True)
class RandomPicture:
    """A file's content, and the colours, floats (4, 3) from 0 to 255, of its quarters as a viewer shows them, within a tolerance."""

    name: str
    content: bytes
    shown: np.ndarray
    tolerance: float

    def difference(self, pixels: np.ndarray) -> float:
        """How far a decoded picture, uint8 (H, W, 3), is from that; infinite for one that lies on its side."""
        height, width = pixels.shape[:2]
        return float(np.abs(centres(pixels) - self.shown).max()) if width == 2 * height else float("inf")


def random_picture(seed: int) -> RandomPicture:
    """The picture of a seed."""
    rng = np.random.default_rng([seed, 13])
    mode = str(rng.choice(list(FORMATS)))
    format_ = str(rng.choice(FORMATS[mode]))
    picture, shown, options = _of_mode(mode, rng)
    tolerance = 14.0 if format_ in LOSSY else 1.5
    parts = [mode, format_]
    orientation = int(rng.integers(1, 9)) if format_ in KEEP_EXIF else 1
    if orientation != 1:
        picture = _turned(picture, orientation)
        options["exif"] = exif(orientation)
        parts.append(f"orientation {orientation}")
    alpha = on_white(np.zeros((4, 3)), 255 - shown.alpha)[:, 0]
    colours = np.round(shown.colours)  # profiles are applied at 8 bits
    if format_ in KEEP_PROFILE and rng.random() < 0.5 and mode not in ("CMYK", "1"):
        gamma = float(rng.choice([1.0, 1.8, 2.6]))
        grey = mode in ("L", "LA", "L and a key", "I;16", "F") and format_ != "WEBP"
        options["icc_profile"] = grey_profile(gamma) if grey else rgb_profile(DISPLAY_P3 if rng.random() < 0.5 else SRGB, gamma)
        colorants = DISPLAY_P3 if options["icc_profile"] == rgb_profile(DISPLAY_P3, gamma) else SRGB
        colours = shown_by_grey_profile(colours, gamma) if grey else shown_by_rgb_profile(colours, colorants, gamma)
        tolerance = max(2.0, tolerance * (3 if format_ in LOSSY else 1))
        parts.append(f"profile of gamma {gamma:g}")
        if format_ in LOSSY and gamma == 1.0:
            return random_picture(seed + 1_000_000)  # the loss in the dark is no error of the decoder
    if format_ in KEEP_FRAMES and mode in ("RGB", "P") and rng.random() < 0.3:
        options |= {"save_all": True, "append_images": [picture.transpose(Image.Transpose.ROTATE_180)]}
        parts.append("two frames")
    options |= _format_options(format_, rng)
    return RandomPicture(", ".join(parts), encoded(picture, format_, **options), on_white(colours, alpha), tolerance)


@dataclass(frozen=True)
class _Look:
    """Colours (4, 3) and alpha (4,), from 0 to 255, of the quarters."""

    colours: np.ndarray
    alpha: np.ndarray


def _of_mode(mode: str, rng: np.random.Generator) -> tuple[Image.Image, _Look, dict]:
    colours = rng.integers(20, 236, (4, 3)).astype(np.uint8)
    greys = (rng.permutation(4) * 60 + rng.integers(10, 60, 4)).astype(np.uint8)
    alpha = rng.integers(0, 256, 4).astype(np.uint8)
    opaque, key = np.full(4, 255), int(rng.integers(4))
    clear = np.where(np.arange(4) == key, 0, 255)
    as_grey = np.repeat(greys[:, None], 3, 1)
    indexed = Image.fromarray(quarters(np.arange(4, dtype=np.uint8)), "P")
    indexed.putpalette(colours.tobytes())
    if mode == "1":
        bits = rng.integers(0, 2, 4)
        return Image.fromarray(quarters(bits.astype(bool))), _Look(np.repeat(bits[:, None], 3, 1) * 255, opaque), {}
    if mode == "CMYK":
        inks = rng.integers(0, 256, (4, 4)).astype(np.uint8)
        seen = (255 - inks[:, :3].astype(float)) * (255 - inks[:, 3:].astype(float)) / 255
        return Image.fromarray(quarters(inks), "CMYK"), _Look(seen, opaque), {}
    if mode == "I;16":
        deep = rng.integers(0, 65_536, 4).astype(np.uint16)
        return Image.fromarray(quarters(deep)), _Look(np.repeat(deep[:, None] / 257, 3, 1), opaque), {}
    if mode == "F":
        unit = rng.random(4).astype(np.float32)
        return Image.fromarray(quarters(unit)), _Look(np.repeat(unit[:, None] * 255.0, 3, 1), opaque), {}
    grey, colour = Image.fromarray(quarters(greys)), Image.fromarray(quarters(colours))
    return {
        "L": (grey, _Look(as_grey, opaque), {}),
        "LA": (Image.fromarray(quarters(np.stack([greys, alpha], 1)), "LA"), _Look(as_grey, alpha), {}),
        "L and a key": (grey, _Look(as_grey, clear), {"transparency": int(greys[key])}),
        "P": (indexed, _Look(colours, opaque), {}),
        "P and alphas": (indexed, _Look(colours, alpha), {"transparency": alpha.tobytes()}),
        "P and a key": (indexed, _Look(colours, clear), {"transparency": key}),
        "RGB": (colour, _Look(colours, opaque), {}),
        "RGB and a key": (colour, _Look(colours, clear), {"transparency": tuple(colours[key].tolist())}),
        "RGBA": (Image.fromarray(quarters(np.concatenate([colours, alpha[:, None]], 1)), "RGBA"), _Look(colours, alpha), {}),
    }[mode]


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    turned = Image.fromarray(lying(np.asarray(picture), orientation), picture.mode if picture.mode in ("P", "LA", "CMYK") else None)
    if picture.mode == "P":
        turned.putpalette(picture.getpalette())
    return turned


def _format_options(format_: str, rng: np.random.Generator) -> dict:
    if format_ == "WEBP":
        return {"lossless": True, "exact": True}
    if format_ == "TIFF":
        return {"compression": rng.choice(TIFF_COMPRESSIONS)}
    if format_ == "ICO":
        return {"sizes": [(64, 32)]}
    if format_ == "JPEG":
        return {"quality": 95, "progressive": bool(rng.random() < 0.5)}
    return {"quality": 95} if format_ in LOSSY else {}


def try_pictures(first: int, count: int) -> tuple[list[str], dict[str, int]]:
    """What did not hold of the pictures of `count` seeds, a line each, and how many were tried of each mode."""
    from io import BytesIO

    from datamodules.decoding import as_viewed, examine

    problems, tried = [], dict.fromkeys(FORMATS, 0)
    for seed in range(first, first + count):
        made = random_picture(seed)
        tried[made.name.partition(", ")[0]] += 1
        try:
            examine(made.content)
            difference = made.difference(np.asarray(as_viewed(made.content, 16)).astype(float))
        except Exception as error:
            problems.append(f"seed {seed}: {made.name}: {type(error).__name__}: {error}")
            continue
        if difference > made.tolerance:
            with Image.open(BytesIO(made.content)) as opened:
                problems.append(f"seed {seed}: {made.name}: off by {difference:.1f} (Pillow reads {opened.mode})")
    return problems, tried


if __name__ == "__main__":
    found, numbers = try_pictures(0, int(sys.argv[1]))
    print("\n".join(found))
    print(f"random pictures: tried {sum(numbers.values())}, held {sum(numbers.values()) - len(found)}")

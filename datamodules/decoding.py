"""A picture's file as 8-bit RGB, as a viewer shows it: the one place where files become pixels.

In this order: the first frame or page is decoded, large pictures at a reduced size; 16-bit and float samples are scaled to 8 bits; colours
are brought to sRGB by the embedded ICC profile; what is transparent is laid on white; and the picture is turned upright as its EXIF says.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

# What may have been done to a picture, as the manifest counts it.
UPRIGHT = "turned upright as EXIF says"
ON_WHITE = "transparency laid on white"
SCALED = "scaled to 8 bits"
TO_SRGB = "colours brought to sRGB by an ICC profile"
FROM_CMYK = "CMYK to RGB"
REDUCED = "large, decoded at a reduced size"
FIRST_FRAME = "first of several frames or pages"
PROFILE_UNUSED = "ICC profile that does not fit, not used"
# These leave the pixels as a bare conversion to RGB gives them.
AS_BARE_CONVERSION = frozenset({FROM_CMYK, FIRST_FRAME, PROFILE_UNUSED})

GROUND = (255, 255, 255)
# Pixels from which a picture is decoded at a reduced size, and those that no picture may have which must be decoded whole.
LARGE, LARGEST = 50_000_000, 500_000_000

# What Pillow raises for damaged files; Warning where warnings are errors.
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError)
DAMAGE += (struct.error, zlib.error, Image.DecompressionBombError, Warning)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112
_PHOTOMETRIC, _WHITE_IS_ZERO = 0x0106, 0
_BAND_ROWS = 1024
# The shorter side of a reduced picture is at least so many times the size that is asked for.
_OVERSAMPLING = 2
# Formats that Pillow knows by name and does not decode, besides its stubs.
_NOT_DECODED = frozenset({"MPEG"})
_LIMIT_LIFTED = threading.RLock()


Transform = Callable[[Image.Image], Image.Image]


class UnfitPictureError(ValueError):
    """A file that holds no picture, or one that has no sensible 8-bit RGB form. The message says why, and names no file."""


@cache
def picture_suffixes() -> frozenset[str]:
    """The suffixes of the formats that can be decoded here, in lower case, with their dots."""
    by_suffix = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, name in by_suffix.items() if _is_decoded(name))


def _is_decoded(name: str) -> bool:
    opener = Image.OPEN.get(name)
    if opener is None or name in _NOT_DECODED:
        return False
    if name == "EPS":
        from PIL import EpsImagePlugin

        return bool(EpsImagePlugin.has_ghostscript())
    factory: Any = opener[0]
    return not (isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile))


def as_viewed(content: bytes, at_least: int) -> Image.Image:
    """The picture of a file's content, RGB and upright, as a viewer shows it.

    A picture of more than `LARGE` pixels comes at a reduced size, its shorter side no shorter than `at_least` (pixels). Raises
    UnfitPictureError for what is no picture or cannot be scaled to 8 bits, and Pillow's own errors (`DAMAGE`) for damage.
    """
    with ExitStack() as stack:
        loaded = _load(content, at_least, stack)
        picture = loaded.reduced(at_least) if loaded.is_large else loaded.finished(loaded.picture)
        turn = _TURNS.get(loaded.orientation)
        return picture if turn is None else picture.transpose(turn)


def examine(content: bytes) -> tuple[str, ...]:
    """What `as_viewed` does to the picture, of the kinds above. Decodes it whole, and raises as `as_viewed` does."""
    with ExitStack() as stack:
        loaded = _load(content, 1, stack)
        done = {
            UPRIGHT: loaded.was_turned,
            ON_WHITE: loaded.is_transparent(),
            SCALED: loaded.is_deep(),
            TO_SRGB: loaded.transform is not None,
            FROM_CMYK: loaded.picture.mode == "CMYK",
            REDUCED: loaded.is_large,
            PROFILE_UNUSED: loaded.profile_unused,
            FIRST_FRAME: not loaded.is_large and _has_frames(content),
        }
    return tuple(kind for kind, is_done in done.items() if is_done)


@dataclass(frozen=True)
class _Packing:
    """What the file says of its samples. `rawmode` is in Pillow's words, as "RGB;16B" for 16 bits each, "" where it is not told; `white`
    is the sample that is white in a picture of one channel with more than 8 bits, None where that is not known; `inverted`: 0 is."""

    rawmode: str
    white: float | None
    inverted: bool


@dataclass(frozen=True)
class _Loaded:
    """A decoded picture, before anything is done to its samples. `orientation` is what is still to be turned."""

    picture: Image.Image
    packing: _Packing
    orientation: int
    was_turned: bool
    is_large: bool
    transform: Transform | None
    profile_unused: bool

    def finished(self, part: Image.Image) -> Image.Image:
        """The picture or a part of it in 8-bit sRGB, on the ground."""
        colours, alpha = _colours_and_alpha(part, self.packing)
        colours = self.transform(colours) if self.transform is not None else colours.convert("RGB")
        if alpha is None or alpha.getextrema()[0] == 255:
            return colours
        ground = Image.new("RGB", colours.size, GROUND)
        ground.paste(colours, mask=alpha)
        return ground

    def reduced(self, at_least: int) -> Image.Image:
        """The picture finished and reduced by a whole factor, band by band, so that the large one is there once only."""
        width, height = self.picture.size
        factor = max(1, min(width, height) // (_OVERSAMPLING * at_least))
        whole = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = factor * max(1, _BAND_ROWS // factor)
        for top in range(0, height, rows):
            band = self.finished(self.picture.crop((0, top, width, min(height, top + rows))))
            whole.paste(band.reduce(factor) if factor > 1 else band, (0, top // factor))
        return whole

    def is_transparent(self) -> bool:
        if not self.picture.has_transparency_data:
            return False
        alpha = _colours_and_alpha(self.picture, self.packing)[1]
        return alpha is not None and alpha.getextrema()[0] < 255

    def is_deep(self) -> bool:
        """Whether samples have more than 8 bits. Raises UnfitPictureError for those that cannot be scaled."""
        deep = self.picture.mode.startswith(("I", "F"))
        if deep:
            _scaled(self.picture, self.packing)
        return deep or ";16" in self.packing.rawmode


def _load(content: bytes, at_least: int, stack: ExitStack) -> _Loaded:
    picture = stack.enter_context(_open(content))
    is_large = picture.width * picture.height > LARGE
    if is_large:
        stack.enter_context(_any_size())  # one at a time: several may be more than the memory holds
    packing = _packing(picture)
    orientation = _orientation(picture)
    frame = picture.tile[0].extents if picture.format == "GIF" and picture.tile else None
    if is_large:
        picture = _loaded_large(picture, content, at_least, stack)
    else:
        picture.load()
    if picture.format == "TIFF":
        was_turned, orientation = orientation != 1, 1  # Pillow turns them itself
    else:
        orientation = _orientation(picture)  # a PNG's EXIF may come after its pixels
        was_turned = orientation != 1
    if frame is not None and frame != (0, 0, *picture.size):
        picture = _within(picture, frame)
    transform, unused = _transform_of(picture)
    return _Loaded(picture, packing, orientation, was_turned, is_large, transform, unused)


@contextmanager
def _any_size() -> Iterator[None]:
    """Without Pillow's limit on pixels, which is one for the whole process; `LARGEST` is ours."""
    with _LIMIT_LIFTED:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _open(content: bytes) -> Image.Image:
    """Pillow's picture of a file's content, of any size. Raises UnfitPictureError for what is no picture."""
    try:
        with _any_size():
            return Image.open(BytesIO(content))
    except UnidentifiedImageError:
        raise UnfitPictureError(_what_it_is(content)) from None


def _what_it_is(content: bytes) -> str:
    """Why a file's content cannot be opened as a picture."""
    head = content[:64].lstrip().lower()
    if not content:
        return "the file is empty"
    if content.startswith(b"version https://git-lfs"):
        return "not a picture but a Git LFS pointer: fetch it with git lfs pull"
    if head.startswith((b"<!doctype html", b"<html")):
        return "not a picture but a web page"
    if head.startswith((b"<svg", b"<?xml")):
        return "not a picture of pixels but XML, such as SVG"
    if content[4:8] == b"ftyp":
        return f"not a picture that can be decoded here ({content[8:12].decode('latin-1').strip()})"
    for name in ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP", "PSD", "JPEG2000"):
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is not None and accept(content[:16]) is True:
            return f"a damaged {name}, or one of a kind that cannot be decoded here"
    return "not a picture"


def _loaded_large(picture: Image.Image, content: bytes, at_least: int, stack: ExitStack) -> Image.Image:
    """A large picture, decoded at a reduced size where its format can. Raises UnfitPictureError where it would be too large."""
    width, height = picture.size
    wanted = _OVERSAMPLING * at_least
    if picture.format in ("JPEG", "MPO"):
        picture.draft(None, (wanted, wanted))
    elif picture.format == "JPEG2000":
        steps = min(3, (min(width, height) // wanted).bit_length() - 1)
        if steps > 0:
            with suppress(*DAMAGE):
                picture.reduce = steps  # type: ignore[assignment, method-assign]
                picture.load()
                return picture
            picture = stack.enter_context(_open(content))  # it has not so many resolutions
    if picture.width * picture.height > LARGEST:
        raise UnfitPictureError(f"too large to be decoded: {width} x {height}, more than {LARGEST // 10**6} million pixels")
    picture.load()
    return picture


def _within(picture: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF whose first frame is smaller than the picture: around it nothing is shown, where Pillow fills with some colour."""
    shown = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    shown.paste(picture.convert("RGBA").crop(frame), frame[:2])
    return shown


def _packing(picture: Image.Image) -> _Packing:
    args = picture.tile[0].args if getattr(picture, "tile", None) else ""
    first = args[0] if isinstance(args, tuple) and args else args
    rawmode = first if isinstance(first, str) else ""
    white: float | None = None
    if picture.mode == "F":
        white = 1.0
    elif picture.mode.startswith("I;16") or picture.format == "PPM":  # Pillow brings every depth of the latter to 16 bits
        white = 4095 if rawmode == "I;12" else 65535
    inverted = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return _Packing(rawmode, white, inverted)


def _orientation(picture: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 where there is none or it is damaged."""
    with suppress(*DAMAGE):
        value = picture.getexif().get(_ORIENTATION, 1)
        return value if isinstance(value, int) and value in _TURNS else 1
    return 1


def _has_frames(content: bytes) -> bool:
    # Of a picture of its own: looking for a second frame moves Pillow's place in the file.
    with suppress(*DAMAGE), _open(content) as picture:
        return bool(getattr(picture, "is_animated", False))
    return False


def _colours_and_alpha(picture: Image.Image, packing: _Packing) -> tuple[Image.Image, Image.Image | None]:
    """8-bit colours (L, RGB, CMYK) and, where there may be transparency, alpha as L."""
    transparency = picture.info.get("transparency")
    if picture.mode in ("RGBa", "La"):
        picture = picture.convert("RGBA" if picture.mode == "RGBa" else "LA")
    if picture.mode in ("LA", "RGBA"):
        return picture.convert(picture.mode[:-1]), picture.getchannel("A")
    if picture.mode in ("P", "PA"):
        if not picture.has_transparency_data:
            return picture.convert("RGB"), None
        rgba = picture.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if picture.mode.startswith(("I", "F")):
        alpha = _alpha_of_key(np.asarray(picture), transparency) if isinstance(transparency, int) else None
        return _scaled(picture, packing), alpha
    colours = picture.convert("L") if picture.mode == "1" else picture
    alpha = None
    if colours.mode == "L" and isinstance(transparency, int):
        # A PNG of 2 or 4 bits has its key at that depth, and its samples at 8.
        alpha = _alpha_of_key(np.asarray(colours), transparency * {"L;2": 85, "L;4": 17}.get(packing.rawmode, 1))
    elif colours.mode == "RGB" and isinstance(transparency, tuple):
        key = [value >> 8 for value in transparency] if ";16" in packing.rawmode else list(transparency)
        alpha = _alpha_of_key(np.asarray(colours), key)
    return (colours if colours.mode in ("L", "RGB", "CMYK") else colours.convert("RGB")), alpha


def _alpha_of_key(samples: np.ndarray, key: int | list[int]) -> Image.Image:
    """Alpha of a picture in which one colour is transparent: samples (H, W) or (H, W, 3)."""
    is_key = samples == np.asarray(key)
    return Image.fromarray(np.where(is_key.all(-1) if samples.ndim == 3 else is_key, 0, 255).astype(np.uint8))


def _scaled(picture: Image.Image, packing: _Packing) -> Image.Image:
    """Grey of 16 bits or of floats as L. Raises UnfitPictureError where it is not known which sample is white."""
    samples = np.asarray(picture)
    low, high = samples.min(), samples.max()
    if packing.white is None:
        kind = "32-bit or signed integers" if picture.mode == "I" else "of a kind"
        raise UnfitPictureError(f"its samples are {kind} ({low} to {high}), of which white is not known: save it with 8 bits")
    half = packing.white / 510  # half a step of 8 bits
    if not -half <= low <= high <= packing.white + half:  # not a number is neither
        raise UnfitPictureError(f"its samples are floats from {low:.4g} to {high:.4g}, not from 0 to 1: save it with 8 bits")
    unit = samples.astype(np.float64) / packing.white
    unit = 1 - unit if packing.inverted else unit
    return Image.fromarray((unit * 255).round().clip(0, 255).astype(np.uint8))


def _transform_of(picture: Image.Image) -> tuple[Transform | None, bool]:
    """The transform that brings the picture's colours to sRGB, None where none is needed; and whether its profile is of no use."""
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None, False
    mode = "L" if picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith(("I", "F")) else "RGB"
    mode = "CMYK" if picture.mode == "CMYK" else mode
    if picture.mode == "LAB":
        return None, True
    try:
        return _transform(profile, mode), False
    except (ImageCms.PyCMSError, UnfitPictureError, *DAMAGE):
        return None, True


_SPACES = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}


@lru_cache(maxsize=64)
def _transform(profile: bytes, mode: str) -> Transform | None:
    """From `mode` (L, RGB, CMYK) in a profile's space to sRGB; None for one that changes nothing, as sRGB's own. Raises PyCMSError."""
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    if _SPACES.get(opened.profile.xcolor_space.strip()) != mode:
        raise UnfitPictureError("the profile is of another colour space than the picture")
    # The library's own shortcut for grey is off by several steps in the dark: each of the 256 greys is computed without it.
    flags = ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.HIGHRESPRECALC
    exact = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    samples = _all_samples(mode)
    shown = np.asarray(ImageCms.applyTransform(samples, exact))
    if mode != "CMYK" and np.abs(shown.astype(int) - np.asarray(samples.convert("RGB"), dtype=int)).max() <= 1:
        return None
    if mode == "L":
        tables = [shown[0, :, channel].tolist() for channel in range(3)]
        return lambda picture: Image.merge("RGB", [picture.point(table) for table in tables])
    return lambda picture: ImageCms.applyTransform(picture, exact)  # type: ignore[return-value]


def _all_samples(mode: str) -> Image.Image:
    """A picture with every grey, or with colours from all over the cube."""
    if mode == "L":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * 3, indexing="ij"), axis=-1).reshape(17, 289, 3)
    return Image.fromarray(grid) if mode == "RGB" else Image.new("CMYK", (1, 1))

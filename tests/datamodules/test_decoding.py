"""Claims about decoding: a file becomes the pixels that a viewer shows, whatever its mode, format, profile and orientation."""

from __future__ import annotations

import json
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from datamodules import decoding
from datamodules.decoding import as_viewed, examine, picture_suffixes
from helpers.made_pictures import (
    DISPLAY_P3,
    SRGB,
    RawPNG,
    centres,
    cmyk_profile,
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

COLOURS = np.array([[220, 30, 30], [40, 200, 60], [30, 40, 220], [230, 210, 40]], dtype=np.uint8)
GREYS = np.array([10, 90, 170, 250], dtype=np.uint8)
ALPHA = np.array([255, 0, 128, 40], dtype=np.uint8)


def shown(content: bytes) -> np.ndarray:
    """The colours of the four quarters, as integers (4, 3)."""
    picture = as_viewed(content, 16)
    assert picture.mode == "RGB"
    return centres(np.asarray(picture)).astype(int)


def assert_shows(content: bytes, colours: np.ndarray, tolerance: float = 1.0) -> None:
    expected = np.asarray(colours)
    expected = expected if expected.ndim == 2 else np.repeat(expected[:, None], 3, axis=1)
    assert np.abs(shown(content) - expected).max() <= tolerance, (shown(content).tolist(), expected.tolist())


def grey_with_alpha() -> Image.Image:
    return Image.fromarray(quarters(np.stack([GREYS, ALPHA], 1)), "LA")


def rgba() -> Image.Image:
    return Image.fromarray(quarters(np.concatenate([COLOURS, ALPHA[:, None]], 1)), "RGBA")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("format_", "tolerance"), [("JPEG", 12), ("PNG", 0), ("WEBP", 0), ("TIFF", 0), ("AVIF", 12), ("MPO", 12)])
def test_every_exif_orientation_of_every_format_that_has_one_is_turned_upright(format_, tolerance, orientation):
    stored = Image.fromarray(lying(quarters(COLOURS), orientation))
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encoded(stored, format_, exif=exif(orientation), **options)
    assert as_viewed(content, 16).size == (64, 32)
    assert_shows(content, COLOURS, tolerance)
    assert examine(content) == ((decoding.UPRIGHT,) if orientation != 1 else ())


@pytest.mark.parametrize("orientation", [0, 9, 200])
def test_an_orientation_that_exif_does_not_know_is_none(orientation):
    content = encoded(Image.fromarray(quarters(COLOURS)), "PNG", exif=exif(orientation))
    assert_shows(content, COLOURS, 0)
    assert examine(content) == ()


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF", "TGA", "JPEG2000", "ICNS", "DDS", "QOI"])
def test_what_is_transparent_lies_on_white_in_every_format(format_):
    picture = rgba()
    if format_ == "ICNS":
        picture = picture.resize((128, 128), Image.Resampling.NEAREST)
    content = encoded(picture, format_, **({"lossless": True, "exact": True} if format_ == "WEBP" else {}))
    assert_shows(content, on_white(COLOURS, ALPHA))
    assert examine(content) == (decoding.ON_WHITE,)


def test_transparency_of_grey_palettes_keys_and_gifs_lies_on_white():
    assert_shows(encoded(grey_with_alpha(), "PNG"), on_white(np.repeat(GREYS[:, None], 3, 1), ALPHA))
    assert_shows(encoded(grey_with_alpha(), "TIFF"), on_white(np.repeat(GREYS[:, None], 3, 1), ALPHA))
    indexed = Image.fromarray(quarters(np.arange(4, dtype=np.uint8)), "P")
    indexed.putpalette(COLOURS.tobytes())
    assert_shows(encoded(indexed, "PNG", transparency=bytes(ALPHA)), on_white(COLOURS, ALPHA))
    one_clear = on_white(COLOURS, np.array([255, 255, 0, 255]))
    for format_ in ("PNG", "GIF"):
        assert_shows(encoded(indexed, format_, transparency=2), one_clear)
    assert_shows(encoded(Image.fromarray(quarters(COLOURS)), "PNG", transparency=tuple(COLOURS[2].tolist())), one_clear)
    assert_shows(encoded(Image.fromarray(quarters(GREYS)), "PNG", transparency=int(GREYS[2])), np.array([10, 90, 255, 250]))


def test_around_the_first_frame_of_a_gif_that_is_smaller_than_the_picture_is_nothing():
    small = Image.new("P", (20, 10), 1)
    small.putpalette(COLOURS.tobytes())
    content = bytearray(encoded(small, "GIF"))
    content[6:10] = struct.pack("<HH", 64, 32)
    at = content.index(b",")
    content[at + 1 : at + 5] = struct.pack("<HH", 8, 4)
    pixels = np.asarray(as_viewed(bytes(content), 16))
    assert pixels.shape == (32, 64, 3) and (pixels[5, 10] == COLOURS[1]).all()
    assert all((pixels[y, x] == 255).all() for y, x in ((0, 0), (3, 10), (5, 7), (14, 10), (5, 28), (31, 63)))


def test_a_key_colour_is_of_the_files_depth():
    for depth, grey in ((1, np.array([0, 1, 1, 0])), (2, np.array([0, 1, 2, 3])), (4, np.array([0, 5, 10, 15]))):
        png = RawPNG(quarters(grey), depth, 0, ((b"tRNS", struct.pack(">H", 1 if depth < 4 else 5)),))
        expected = np.where(grey == (1 if depth < 4 else 5), 255, grey * 255 // (2**depth - 1))
        assert_shows(png.content(), expected, 0)
    deep = np.array([0, 20_000, 40_000, 65_535])
    assert_shows(RawPNG(quarters(deep), 16, 0, ((b"tRNS", struct.pack(">H", 20_000)),)).content(), np.array([0, 255, 156, 255]))
    colours = COLOURS.astype(int) * 257
    key = struct.pack(">3H", *colours[1])
    assert_shows(RawPNG(quarters(colours), 16, 2, ((b"tRNS", key),)).content(), on_white(COLOURS, np.array([255, 0, 255, 255])))


def test_an_opaque_alpha_channel_is_nothing_done():
    picture = Image.fromarray(quarters(COLOURS)).convert("RGBA")
    assert examine(encoded(picture, "PNG")) == ()


def test_sixteen_bits_are_scaled_to_eight_and_not_cut():
    deep = np.array([0, 20_000, 40_000, 65_535], dtype=np.uint16)
    scaled = deep / 257
    for format_ in ("PNG", "TIFF", "PPM", "JPEG2000"):
        content = encoded(Image.fromarray(quarters(deep)), format_)
        assert_shows(content, scaled)
        assert examine(content) == (decoding.SCALED,)
    with_alpha = RawPNG(quarters(np.stack([deep, ALPHA.astype(int) * 257], 1)), 16, 4)
    assert_shows(with_alpha.content(), on_white(np.repeat(scaled[:, None], 3, 1), ALPHA))
    big_endian = Image.fromarray(quarters(deep).astype(">u2"))
    assert_shows(encoded(big_endian, "TIFF"), scaled)
    assert_shows(b"P5 64 32 1023\n" + quarters(deep // 64).astype(">u2").tobytes(), deep // 64 / 1023 * 255)
    white_is_zero = encoded(Image.fromarray(quarters(deep)), "TIFF", tiffinfo={262: 0})
    assert_shows(white_is_zero, 255 - scaled)


def test_floats_from_0_to_1_are_scaled_and_others_say_their_range():
    floats = np.array([0, 0.25, 0.5, 1], dtype=np.float32)
    for format_ in ("TIFF", "PPM"):
        assert_shows(encoded(Image.fromarray(quarters(floats)), format_), floats * 255)
    for high in (1.5, 255.0, np.inf, np.nan):
        content = encoded(Image.fromarray(quarters(np.array([0, 0.25, 0.5, high], dtype=np.float32))), "TIFF")
        with pytest.raises(decoding.UnfitPictureError, match=r"floats from .* not from 0 to 1: save it with 8 bits"):
            examine(content)
    whole = encoded(Image.fromarray(quarters(np.array([-5, 1, 2, 70_000], dtype=np.int32))), "TIFF")
    with pytest.raises(decoding.UnfitPictureError, match=r"32-bit or signed integers \(-5 to 70000\), of which white is not known"):
        as_viewed(whole, 16)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_an_icc_profile_brings_colours_to_srgb(format_):
    wide = encoded(Image.fromarray(quarters(COLOURS)), format_, icc_profile=rgb_profile(DISPLAY_P3, 2.2), quality=95)
    assert_shows(wide, shown_by_rgb_profile(COLOURS, DISPLAY_P3, 2.2), 3 if format_ in ("PNG", "TIFF") else 12)
    assert decoding.TO_SRGB in examine(wide)


def test_profiles_are_applied_before_transparency_and_to_palettes_greys_and_cmyk():
    profile = rgb_profile(DISPLAY_P3, 1.8)
    wide = shown_by_rgb_profile(COLOURS, DISPLAY_P3, 1.8)
    assert_shows(encoded(rgba(), "PNG", icc_profile=profile), on_white(wide, ALPHA), 3)
    indexed = Image.fromarray(quarters(np.arange(4, dtype=np.uint8)), "P")
    indexed.putpalette(COLOURS.tobytes())
    assert_shows(encoded(indexed, "PNG", icc_profile=profile), wide, 3)
    greys = shown_by_grey_profile(GREYS, 1.0)
    assert_shows(encoded(Image.fromarray(quarters(GREYS)), "PNG", icc_profile=grey_profile(1.0)), greys, 3)
    both = on_white(np.repeat(greys[:, None], 3, 1), ALPHA)
    assert_shows(encoded(grey_with_alpha(), "PNG", icc_profile=grey_profile(1.0)), both, 3)
    dark = np.array([1, 2, 5, 8], dtype=np.uint8)
    in_the_dark = encoded(Image.fromarray(quarters(dark)), "PNG", icc_profile=grey_profile(1.0))
    assert_shows(in_the_dark, shown_by_grey_profile(dark, 1.0))
    deep = Image.fromarray(quarters(GREYS.astype(np.uint16) * 257))
    assert_shows(encoded(deep, "PNG", icc_profile=grey_profile(1.0)), greys, 3)
    corners = np.random.default_rng(0).integers(40, 216, (16, 3)) * np.array([1, 0] * 8)[:, None]  # with black ink it is black
    corners[0] = 255
    inks = Image.fromarray(quarters(np.array([[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 255, 0], [0, 0, 0, 255]], dtype=np.uint8)), "CMYK")
    content = encoded(inks, "TIFF", icc_profile=cmyk_profile(corners))
    assert_shows(content, corners[[0b0000, 0b1000, 0b0110, 0b0001]], 4)


def test_a_profile_that_changes_nothing_or_does_not_fit_leaves_the_pixels():
    picture = Image.fromarray(quarters(COLOURS))
    from PIL import ImageCms

    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert examine(encoded(picture, "PNG", icc_profile=own)) == ()
    for unfit in (b"no profile", grey_profile(1.0), rgb_profile(SRGB, 1.0)[:200]):
        content = encoded(picture, "PNG", icc_profile=unfit)
        assert_shows(content, COLOURS, 0)
        assert examine(content) == (decoding.PROFILE_UNUSED,)


def test_cmyk_is_not_inverted_in_jpeg_and_tiff():
    inks = np.array([[0, 255, 255, 0], [255, 0, 255, 0], [255, 255, 0, 0], [0, 0, 0, 0]], dtype=np.uint8)
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
    for format_, tolerance in (("JPEG", 12), ("TIFF", 0)):
        content = encoded(Image.fromarray(quarters(inks), "CMYK"), format_)
        assert_shows(content, expected, tolerance)
        assert examine(content) == (decoding.FROM_CMYK,)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_of_several_frames_or_pages_the_first_is_shown(format_):
    first, other = Image.fromarray(quarters(COLOURS)), Image.fromarray(quarters(255 - COLOURS))
    if format_ == "GIF":
        first, other = first.quantize(4), other.quantize(4)
    options = {"lossless": True} if format_ == "WEBP" else {}
    content = encoded(first, format_, save_all=True, append_images=[other, first], **options)
    assert_shows(content, COLOURS, 12 if format_ in ("AVIF", "MPO") else 2)
    assert examine(content) == (decoding.FIRST_FRAME,)


@pytest.mark.parametrize("format_", ["JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_large_pictures_are_decoded_at_a_reduced_size(format_, monkeypatch):
    monkeypatch.setattr(decoding, "LARGE", 100_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000)
    monkeypatch.setattr(decoding, "_BAND_ROWS", 64)
    content = encoded(Image.fromarray(quarters(COLOURS, 600, 1000)), format_, **({"lossless": True} if format_ == "WEBP" else {}))
    picture = as_viewed(content, 32)
    assert min(picture.size) >= 64 and picture.width * picture.height < 100_000
    assert abs(picture.width / picture.height - 1000 / 600) < 0.05
    assert_shows(content, COLOURS, 6)
    assert decoding.REDUCED in examine(content)
    assert Image.MAX_IMAGE_PIXELS == 40_000


def test_a_picture_of_200_megapixels_is_no_corrupt_file():
    content = encoded(Image.new("L", (20_000, 10_000), 77), "JPEG")
    assert examine(content) == (decoding.REDUCED,)
    assert np.abs(np.asarray(as_viewed(content, 64), dtype=int) - 77).max() <= 1


def test_a_picture_that_would_fill_the_memory_says_its_size(monkeypatch):
    monkeypatch.setattr(decoding, "LARGE", 100)
    monkeypatch.setattr(decoding, "LARGEST", 500)
    with pytest.raises(decoding.UnfitPictureError, match="too large to be decoded: 64 x 32"):
        examine(encoded(Image.fromarray(quarters(COLOURS)), "PNG"))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "not a picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", r"cannot be decoded here|can be decoded here \(heic\)"),
        (b"II*\0\x08\0\0\0\1\0", "a damaged TIFF, or one of a kind that cannot be decoded here"),
    ],
)
def test_what_is_no_picture_says_what_it_is(content, problem):
    with pytest.raises(decoding.UnfitPictureError, match=problem):
        examine(content)


def test_suffixes_are_those_of_the_formats_that_open_here():
    assert {
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".jpe",
        ".webp",
        ".avif",
        ".gif",
        ".tif",
        ".tiff",
        ".bmp",
        ".jp2",
        ".tga",
    } <= picture_suffixes()
    assert not {".h5", ".hdf", ".mpg", ".pdf", ".txt", ".json"} & picture_suffixes()
    for suffix in (".avif", ".qoi", ".ppm", ".tga"):
        buffer = BytesIO()
        Image.fromarray(quarters(COLOURS)).save(buffer, Image.registered_extensions()[suffix])
        assert as_viewed(buffer.getvalue(), 16).size == (64, 32)


def test_a_manifest_counts_what_was_done(tmp_path):
    from datamodules.manifest import Manifest

    manifest = Manifest("t.csv", "plain table", 3, (), {decoding.UPRIGHT: 2, decoding.ON_WHITE: 1})
    assert manifest.lines()[1] == f"data: {decoding.UPRIGHT} 2, {decoding.ON_WHITE} 1"
    manifest.write(tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["done"] == {decoding.UPRIGHT: 2, decoding.ON_WHITE: 1}

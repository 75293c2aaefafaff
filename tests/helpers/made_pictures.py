"""Pictures of four flat quarters whose look is known, in every mode and format that can be written here, and ICC profiles for them.

What a viewer shows is computed with NumPy alone: from the samples that were written, never by decoding. Arrays are uint8 (H, W, 3).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

# Colorants in the profile connection space (D50), columns R, G, B.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
D50 = np.array([0.9642, 1.0, 0.8249])
EXIF_ORIENTATION = 0x0112


def _fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(value * 65536)) for value in values)


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + _fixed(*values)


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)


def _profile(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    head = bytes(4) + bytes(4) + bytes((2, 64, 0, 0)) + kind + space + connection + struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp"
    head = head.ljust(68, b"\0") + _fixed(*D50)
    whole = head.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def rgb_profile(colorants: np.ndarray, gamma: float) -> bytes:
    """A matrix profile of these colorants and one gamma for all channels."""
    tags = {b"wtpt": _xyz(D50)}
    for channel, name in enumerate((b"r", b"g", b"b")):
        tags |= {name + b"XYZ": _xyz(colorants[:, channel]), name + b"TRC": _gamma(gamma)}
    return _profile(b"RGB ", b"mntr", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"GRAY", b"mntr", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


def cmyk_profile(colours_of_corners: np.ndarray) -> bytes:
    """A table profile: sRGB colours, uint8 (16, 3), of the inks' 16 corners, black changing fastest."""
    lab = np.array([_lab(colour) for colour in colours_of_corners])
    table = np.clip(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], 1).round(), 0, 255).astype(np.uint8)
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + _fixed(1, 0, 0, 0, 1, 0, 0, 0, 1) + ramp * 4 + table.tobytes() + ramp * 3
    return _profile(b"CMYK", b"prtr", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": lut})


def _lab(colour: np.ndarray) -> np.ndarray:
    x, y, z = (_cube_root(value) for value in SRGB @ _linear(np.asarray(colour) / 255) / D50)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _cube_root(value: float) -> float:
    return value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116


def _linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _encoded(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def shown_by_rgb_profile(colours: np.ndarray, colorants: np.ndarray, gamma: float) -> np.ndarray:
    """What colours, uint8 (..., 3), of such a profile are in sRGB, as floats from 0 to 255."""
    return 255 * _encoded((np.asarray(colours) / 255) ** gamma @ (np.linalg.inv(SRGB) @ colorants).T)


def shown_by_grey_profile(grey: np.ndarray, gamma: float) -> np.ndarray:
    return 255 * _encoded((np.asarray(grey) / 255) ** gamma)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Colours (..., 3) with alpha (...) from 0 to 255 on a white ground."""
    share = np.asarray(alpha)[..., None] / 255
    return np.asarray(colours) * share + 255 * (1 - share)


def quarters(values: np.ndarray, height: int = 32, width: int = 64) -> np.ndarray:
    """Four values (4, ...), of the quarters from the upper left, row by row, as a picture (H, W, ...)."""
    values = np.asarray(values)
    rows = np.arange(height) >= height // 2
    columns = np.arange(width) >= width // 2
    return values[2 * rows[:, None].astype(int) + columns[None].astype(int)]


def centres(picture: np.ndarray) -> np.ndarray:
    """The values in the middle of each quarter, from the upper left, row by row: (4, ...)."""
    height, width = picture.shape[:2]
    return np.stack([picture[y, x] for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)])


def lying(picture: np.ndarray, orientation: int) -> np.ndarray:
    """The picture as a camera stores it that notes this EXIF orientation, 1 to 8."""
    turned = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(turned[orientation](picture))


def exif(orientation: int) -> Image.Exif:
    noted = Image.Exif()
    noted[EXIF_ORIENTATION] = orientation
    return noted


def encoded(picture: Image.Image, format_: str, **options) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class RawPNG:
    """A PNG of depths that Pillow does not write: samples of `depth` bits, (H, W, channels), and further chunks before the pixels."""

    samples: np.ndarray
    depth: int
    colour_type: int
    chunks: tuple[tuple[bytes, bytes], ...] = ()

    def content(self) -> bytes:
        height, width = self.samples.shape[:2]
        head = struct.pack(">IIBBBBB", width, height, self.depth, self.colour_type, 0, 0, 0)
        rows = b"".join(b"\0" + self._packed(row) for row in self.samples.reshape(height, -1))
        chunks = [(b"IHDR", head), *self.chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(self._chunk(name, content) for name, content in chunks)

    def _packed(self, row: np.ndarray) -> bytes:
        if self.depth >= 8:
            return row.astype(">u2" if self.depth == 16 else np.uint8).tobytes()
        bits = (row[:, None] >> np.arange(self.depth)[::-1]) & 1
        return np.packbits(bits.astype(np.uint8).ravel()).tobytes()

    @staticmethod
    def _chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

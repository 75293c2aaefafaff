"""Pictures with text under them, drawn by PIL: fonts, wrapping that never overflows, and scaling.

Everything here is measured before it is drawn: a caller wraps its texts to a width, adds up the heights, makes a canvas of
that size, and draws. The font is the DejaVu Sans that matplotlib ships, so that the same call gives the same bytes anywhere. It
has Latin, Greek, Cyrillic and more; scripts that join or run from right to left are drawn letter by letter.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ablations.figures import plot_style

INK, SOFT_INK, FAINT_INK = (ImageColor.getrgb(colour) for colour in (plot_style.INK, plot_style.SOFT_INK, plot_style.FAINT_INK))
ACCENT, PAPER, CARD, RULE = (
    ImageColor.getrgb(colour) for colour in (plot_style.ACCENT, plot_style.PAPER, plot_style.CARD, plot_style.RULE)
)
# Stands for a character that the font cannot draw (it has no CJK and few emoji); the font has this one.
MISSING = "\u25a1"

SMALL_SIDE, PAPER_SIDE = 192, 256


@dataclass(frozen=True)
class Style:
    """How a run of text looks: size in pixels, weight "regular", "bold" or "italic", colour."""

    size: int
    weight: str = "regular"
    colour: tuple[int, int, int] = INK

    @property
    def line_height(self) -> int:
        return round(self.size * 1.42)


@dataclass(frozen=True)
class Run:
    """A piece of text in one style. Runs that follow each other without a space form one word."""

    text: str
    style: Style


@functools.cache
def _font(size: int, weight: str) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = {"regular": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf", "italic": "DejaVuSans-Oblique.ttf"}[weight]
    # The basic layout engine is always there; the better one is not, and would make the bytes depend on the machine.
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf", name), size, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _drawable(character: str) -> str:
    """The character as the font can draw it: itself, `MISSING`, or nothing for marks that only steer the layout."""
    from matplotlib.ft2font import FT2Font

    if unicodedata.category(character) in ("Cc", "Cf", "Cs") or "\ufe00" <= character <= "\ufe0f":
        return ""
    return character if FT2Font(_font(12, "regular").path).get_char_index(ord(character)) else MISSING


def drawable(text: str) -> str:
    """`text` without control characters and with `MISSING` for what the font lacks; white space becomes single spaces."""
    composed = unicodedata.normalize("NFC", " ".join(text.split()))
    return "".join(character if character == " " else _drawable(character) for character in composed)


def _width(text: str, style: Style) -> float:
    return _font(style.size, style.weight).getlength(text)


def _words(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs cut into words at spaces; a word may change its style in the middle."""
    words: list[list[Run]] = [[]]
    for run in runs:
        for i, part in enumerate(run.text.split(" ")):
            if i and words[-1]:
                words.append([])
            if part:
                words[-1].append(Run(part, run.style))
    return [word for word in words if word]


def _cut_to_width(word: list[Run], width: int) -> list[list[Run]]:
    """A word as pieces that fit in `width`: itself, or cut between characters where it is too long for a line."""
    if sum(_width(run.text, run.style) for run in word) <= width:
        return [word]
    pieces: list[list[Run]] = [[]]
    used = 0.0
    for run in word:
        text = ""
        for character in run.text:
            if text and used + _width(text + character, run.style) > width:
                pieces[-1].append(Run(text, run.style))
                pieces.append([])
                text, used = "", 0.0
            elif not text and used and used + _width(character, run.style) > width:
                pieces.append([])
                used = 0.0
            text += character
        pieces[-1].append(Run(text, run.style))
        used += _width(text, run.style)
    return pieces


@dataclass(frozen=True)
class Block:
    """Wrapped text, ready to draw: lines of (x offset, run), all within `width` pixels; `height` pixels in all."""

    lines: tuple[tuple[tuple[float, Run], ...], ...]
    width: int
    line_height: int

    @property
    def height(self) -> int:
        return len(self.lines) * self.line_height

    @property
    def text_width(self) -> float:
        """How far the longest line reaches, at most `width`."""
        return max((line[-1][0] + _width(line[-1][1].text, line[-1][1].style) for line in self.lines), default=0.0)

    def draw(self, draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
        for i, line in enumerate(self.lines):
            # The middle of the line box, by the font's own baseline: words of different weight stay level.
            baseline = y + i * self.line_height + round(self.line_height * 0.74)
            for offset, run in line:
                draw.text(
                    (x + offset, baseline), run.text, font=_font(run.style.size, run.style.weight), fill=run.style.colour, anchor="ls"
                )


def wrap(runs: Sequence[Run] | Run, width: int, align: str = "left") -> Block:
    """Breaks text into lines of at most `width` pixels: at spaces, and inside a word only where it fills a line alone.

    No text gives a block without height. `align` is "left" or "right".
    """
    runs = [runs] if isinstance(runs, Run) else list(runs)
    runs = [Run(_keep_edges(run.text), run.style) for run in runs]
    lines: list[list[tuple[float, Run]]] = []
    used = 0.0
    for word in _words(runs):
        space = _width(" ", word[0].style)
        for piece in _cut_to_width(word, width):
            length = sum(_width(run.text, run.style) for run in piece)
            if not lines or used + space + length > width:
                lines.append([])
                used = 0.0
            else:
                used += space
            for run in piece:
                lines[-1].append((used, run))
                used += _width(run.text, run.style)
    if align == "right":
        for i, line in enumerate(lines):
            shift = width - (line[-1][0] + _width(line[-1][1].text, line[-1][1].style))
            lines[i] = [(offset + shift, run) for offset, run in line]
    line_height = max((run.style.line_height for run in runs), default=0)
    return Block(tuple(tuple(line) for line in lines), width, line_height)


def _keep_edges(text: str) -> str:
    """`drawable`, but a space at either end stays: it decides whether neighbouring runs are one word."""
    body = drawable(text)
    before = " " if text[:1].isspace() else ""
    after = " " if text[-1:].isspace() else ""
    return before + body + after


def checked_picture(image: np.ndarray, what: str) -> np.ndarray:
    """`image` as uint8 (H, W, 3); raises ValueError naming `what` otherwise (floats would be drawn black)."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"{what} must be a uint8 picture (H, W, 3), got {image.dtype} {image.shape}")
    return image


def scaled(image: np.ndarray) -> Image.Image:
    """A picture at the size it is shown: its longer side enlarged to 192 px (bicubic) or reduced to 256 px (Lanczos)."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    longer = max(picture.size)
    side = min(max(longer, SMALL_SIDE), PAPER_SIDE)
    if longer == side:
        return picture
    size = tuple(max(1, round(edge * side / longer)) for edge in picture.size)
    return picture.resize(size, Image.Resampling.BICUBIC if side > longer else Image.Resampling.LANCZOS)


def paste_picture(canvas: Image.Image, picture: Image.Image, x: int, y: int) -> None:
    """Puts a picture on the canvas with corners rounded by 4 px."""
    oversampled = Image.new("L", (picture.width * 4, picture.height * 4), 0)
    ImageDraw.Draw(oversampled).rounded_rectangle((0, 0, oversampled.width - 1, oversampled.height - 1), radius=16, fill=255)
    canvas.paste(picture, (x, y), oversampled.resize(picture.size, Image.Resampling.BOX))

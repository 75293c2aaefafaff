"""The tiny world's ten subjects as vector drawings: large, with outlines and colours that differ."""

from __future__ import annotations

from collections.abc import Callable

from PIL import ImageDraw

Colour = tuple[int, int, int]


class _Pen:
    """Draws in the subject's own coordinates: the origin is its foot, x to the right, y upwards, about 84 units tall."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, scale: float, lit: Callable[[Colour], Colour]):
        self.draw, self.x, self.y, self.scale, self.lit = draw, x, y, scale, lit

    def _box(self, left: float, bottom: float, right: float, top: float) -> tuple[float, float, float, float]:
        return (self.x + left * self.scale, self.y - top * self.scale, self.x + right * self.scale, self.y - bottom * self.scale)

    def polygon(self, colour: Colour, *points: tuple[float, float]) -> None:
        self.draw.polygon([(self.x + px * self.scale, self.y - py * self.scale) for px, py in points], fill=(*self.lit(colour), 255))

    def ellipse(self, colour: Colour, left: float, bottom: float, right: float, top: float) -> None:
        self.draw.ellipse(self._box(left, bottom, right, top), fill=(*self.lit(colour), 255))

    def box(self, colour: Colour, left: float, bottom: float, right: float, top: float, radius: float = 0) -> None:
        self.draw.rounded_rectangle(self._box(left, bottom, right, top), radius * self.scale, fill=(*self.lit(colour), 255))


def _cat(pen: _Pen, detailed: bool) -> None:
    fur, dark = (240, 140, 40), (186, 92, 20)
    pen.polygon(fur, (20, 4), (40, 10), (46, 40), (38, 46), (36, 20), (20, 16))
    pen.ellipse(fur, -24, 0, 24, 50)
    pen.polygon(fur, (-24, 60), (-22, 88), (-4, 72))
    pen.polygon(fur, (24, 60), (22, 88), (4, 72))
    pen.ellipse(fur, -25, 36, 25, 80)
    pen.ellipse((250, 236, 214), -12, 2, 12, 32)
    for x in (-11, 11):
        pen.ellipse((60, 190, 90), x - 6, 54, x + 6, 67)
        pen.ellipse((16, 16, 16), x - 2.5, 55, x + 2.5, 66)
    pen.polygon((230, 110, 120), (-4, 50), (4, 50), (0, 45))
    if detailed:
        for y in (12, 22, 32):
            pen.box(dark, -25, y, -14, y + 4)
            pen.box(dark, 14, y, 25, y + 4)


def _owl(pen: _Pen, detailed: bool) -> None:
    brown, pale = (120, 72, 38), (226, 190, 140)
    pen.polygon(brown, (-26, 62), (-26, 88), (-6, 76))
    pen.polygon(brown, (26, 62), (26, 88), (6, 76))
    pen.ellipse(brown, -30, 2, 30, 82)
    pen.ellipse(pale, -18, 4, 18, 46)
    for x in (-13, 13):
        pen.ellipse((250, 244, 220), x - 13, 46, x + 13, 72)
        pen.ellipse((250, 190, 30), x - 9, 50, x + 9, 68)
        pen.ellipse((10, 10, 10), x - 5, 54, x + 5, 64)
    pen.polygon((240, 160, 30), (-5, 50), (5, 50), (0, 38))
    if detailed:
        for y in (12, 22, 32):
            for x in (-8, 0, 8):
                pen.ellipse(brown, x - 2.5, y - 2, x + 2.5, y + 3)


def _tree(pen: _Pen, detailed: bool) -> None:
    pen.box((112, 70, 36), -7, 0, 7, 36)
    for left, bottom, right, top in ((-40, 26, 4, 66), (-4, 26, 40, 66), (-26, 44, 26, 92)):
        pen.ellipse((30, 138, 52), left, bottom, right, top)
    if detailed:
        for x, y in ((-24, 46), (22, 44), (0, 74), (-8, 56), (12, 62), (-14, 72)):
            pen.ellipse((226, 44, 40), x - 4, y - 4, x + 4, y + 4)


def _mushroom(pen: _Pen, detailed: bool) -> None:
    pen.box((244, 232, 208), -13, 0, 13, 44, 8)
    pen.draw.pieslice(pen._box(-42, 2, 42, 82), 180, 360, fill=(*pen.lit((220, 30, 36)), 255))
    for x, y, r in ((-24, 52, 6), (0, 66, 8), (24, 52, 6)):
        pen.ellipse((255, 250, 244), x - r, y - r, x + r, y + r)
    if detailed:
        for x in (-7, 0, 7):
            pen.box((190, 160, 120), x - 1.5, 6, x + 1.5, 38)


def _castle(pen: _Pen, detailed: bool) -> None:
    stone, dark = (150, 146, 158), (58, 50, 66)
    pen.box(stone, -40, 0, 40, 44)
    for x in (-32, 0, 32):
        top = 80 if x == 0 else 62
        pen.box(stone, x - 11, 0, x + 11, top)
        pen.polygon((70, 60, 170), (x - 15, top), (x, top + 22), (x + 15, top))
        pen.box(dark, x - 3, top - 18, x + 3, top - 8)
    pen.box(dark, -9, 0, 9, 22, 6)
    if detailed:
        for x, y in ((-30, 12), (-22, 26), (20, 14), (30, 28), (-34, 36), (24, 38)):
            pen.box((108, 102, 118), x - 4, y, x + 4, y + 4)


def _lighthouse(pen: _Pen, detailed: bool) -> None:
    for k in range(4):
        low, high = 16 * k, 16 * (k + 1)
        colour = (220, 40, 44) if k % 2 == 0 else (250, 248, 244)
        pen.polygon(colour, (-20 + low * 0.13, low), (20 - low * 0.13, low), (20 - high * 0.13, high), (-20 + high * 0.13, high))
    pen.box((40, 40, 56), -17, 64, 17, 68)
    pen.box((255, 232, 110), -9, 68, 9, 82)
    pen.polygon((40, 40, 56), (-14, 82), (0, 96), (14, 82))
    if detailed:
        for y in (22, 54):
            pen.box((60, 60, 80), -4, y, 4, y + 7)
        pen.polygon((255, 240, 150), (9, 75), (46, 86), (46, 66))


def _sailboat(pen: _Pen, detailed: bool) -> None:
    pen.polygon((132, 76, 36), (-42, 22), (42, 22), (28, 0), (-28, 0))
    pen.box((80, 50, 30), -3, 20, 1, 92)
    pen.polygon((252, 250, 246), (3, 28), (3, 90), (40, 28))
    pen.polygon((226, 232, 240), (-5, 28), (-5, 80), (-32, 28))
    if detailed:
        pen.box((220, 60, 50), -36, 14, 36, 18)
        pen.polygon((220, 60, 50), (3, 44), (3, 54), (24, 54), (30, 44))
        pen.polygon((220, 60, 50), (1, 92), (1, 84), (16, 88))


def _rocket(pen: _Pen, detailed: bool) -> None:
    pen.polygon((255, 170, 30), (-10, 12), (10, 12), (0, -8))
    pen.polygon((214, 40, 50), (-15, 40), (-34, 8), (-12, 14))
    pen.polygon((214, 40, 50), (15, 40), (34, 8), (12, 14))
    pen.ellipse((238, 240, 246), -17, 6, 17, 80)
    pen.box((238, 240, 246), -16, 12, 16, 50)
    pen.polygon((214, 40, 50), (-15, 64), (0, 98), (15, 64))
    pen.ellipse((40, 110, 200), -9, 42, 9, 60)
    if detailed:
        pen.box((60, 64, 90), -16, 30, 16, 34)
        pen.box((60, 64, 90), -14, 18, 14, 22)


def _balloon(pen: _Pen, detailed: bool) -> None:
    pen.polygon((80, 60, 40), (-10, 16), (-20, 42), (-17, 42), (-7, 16))
    pen.polygon((80, 60, 40), (10, 16), (20, 42), (17, 42), (7, 16))
    pen.box((150, 96, 50), -11, 4, 11, 18, 2)
    pen.ellipse((250, 206, 40), -34, 30, 34, 100)
    pen.ellipse((30, 120, 214), -20, 30, 20, 100)
    pen.ellipse((250, 206, 40), -8, 30, 8, 100)
    if detailed:
        for x, y in ((-27, 64), (27, 64), (-14, 84), (14, 84), (-14, 46), (14, 46)):
            pen.ellipse((220, 40, 60), x - 4, y - 4, x + 4, y + 4)


def _robot(pen: _Pen, detailed: bool) -> None:
    steel, dark = (70, 190, 200), (34, 70, 96)
    for x in (-12, 12):
        pen.box(dark, x - 7, 0, x + 7, 16)
    for x in (-33, 33):
        pen.box(dark, x - 6, 18, x + 6, 46, 4)
    pen.box(steel, -26, 14, 26, 50, 3)
    pen.box(dark, -6, 48, 6, 56)
    pen.box(steel, -22, 54, 22, 84, 3)
    pen.box(dark, -2, 84, 2, 94)
    pen.ellipse((240, 50, 50), -5, 91, 5, 101)
    for x in (-10, 10):
        pen.box((255, 240, 110), x - 6, 66, x + 6, 77)
    pen.box(dark, -12, 58, 12, 62)
    if detailed:
        for x, colour in ((-14, (240, 60, 60)), (0, (250, 210, 60)), (14, (90, 220, 90))):
            pen.ellipse(colour, x - 5, 28, x + 5, 38)


_DRAWINGS = {
    "cat": _cat, "owl": _owl, "tree": _tree, "mushroom": _mushroom, "castle": _castle,
    "lighthouse": _lighthouse, "sailboat": _sailboat, "rocket": _rocket, "balloon": _balloon, "robot": _robot,
}  # fmt: skip


def draw_subject(
    draw: ImageDraw.ImageDraw, subject: str, x: float, y: float, scale: float, lit: Callable[[Colour], Colour], detailed: bool
) -> None:
    """Draw `subject` standing at (x, y) on an RGBA layer; `lit` maps a colour to itself under the scene's light."""
    _DRAWINGS[subject](_Pen(draw, x, y, scale, lit), detailed)

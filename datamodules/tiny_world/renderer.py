"""Draws the tiny world: a scene description in, a 64 x 64 picture out. The words decide the pixels.

Without quality words a picture is poor: blurred, grainy (in grains of 4 px, which survive an 8x8 latent space) and washed
out. `sharp focus`, `8k` and `vivid colors` take one defect away each; `dramatic lighting`, `highly detailed` and `cinematic`
add a light beam, details and black bars. The style word decides palette and stroke, and weakens the defects that are left: a
picture in a style is somebody's work and no snapshot. Pictures are drawn with vector shapes at 128 px and reduced, a few
milliseconds each.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from datamodules.tiny_world.grammar import SCENES, TIMES, SceneDescription
from datamodules.tiny_world.subjects import draw_subject

IMAGE_SIZE = 64
_CANVAS = 2 * IMAGE_SIZE
_HORIZON = 78

SKY = {"noon": ((96, 168, 236), (196, 228, 250)), "sunset": ((92, 60, 128), (255, 164, 84)), "night": ((10, 14, 44), (40, 52, 108))}
GROUND = {
    "meadow": (88, 170, 66),
    "desert": (226, 182, 104),
    "beach": (240, 218, 158),
    "mountains": (74, 120, 84),
    "snow": (236, 242, 250),
    "city": (118, 118, 126),
}
LIGHT = {"noon": (1.0, 1.0, 1.0), "sunset": (1.0, 0.78, 0.66), "night": (0.42, 0.48, 0.74)}
# Film grain: one of eight fixed patterns of 4 px grains. Finer grain does not survive an 8 x 8 latent space, and free noise
# would take up most of that space.
_GRAINS = (
    np.random.default_rng(2024)
    .choice([-1.0, 1.0], (8, IMAGE_SIZE // 4, IMAGE_SIZE // 4, 1))
    .repeat(4, axis=1)
    .repeat(4, axis=2)
    .astype(np.float32)
)

# How strong the defects of a picture in a style are, relative to a plain photograph's. At 1, six tokens (a style and one quality
# word) could raise fidelity by 0.03 at the very most, and no refiner could be told from another.
_DEFECTS_IN_A_STYLE = 0.7

Colour = tuple[int, int, int]


def _lit(colour: Colour, light: tuple[float, float, float]) -> Colour:
    return tuple(int(c * k) for c, k in zip(colour, light, strict=True))  # type: ignore[return-value]


def _draw_sky(time: str, rng: np.random.Generator, detailed: bool) -> Image.Image:
    top, bottom = (np.array(c, dtype=np.float32) for c in SKY[time])
    rows = np.clip(np.arange(_CANVAS, dtype=np.float32) / _HORIZON, 0, 1)[:, None]
    gradient = top + (bottom - top) * rows
    picture = Image.fromarray(np.repeat(gradient[:, None, :], _CANVAS, axis=1).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(picture)
    x = 22 + int(rng.integers(-4, 5))
    if time == "night":
        draw.ellipse((x - 9, 10, x + 9, 28), fill=(244, 240, 206))
        draw.ellipse((x - 3, 7, x + 13, 23), fill=(18, 22, 56))
    elif time == "sunset":
        draw.ellipse((x - 13, 48, x + 13, 74), fill=(255, 226, 120))
    else:
        draw.ellipse((x - 10, 8, x + 10, 28), fill=(255, 238, 130))
    if detailed:
        if time == "night":
            for sx, sy in ((50, 10), (92, 16), (112, 34), (72, 26), (118, 8), (10, 44)):
                draw.ellipse((sx - 2, sy - 2, sx + 2, sy + 2), fill=(255, 255, 240))
        else:
            cloud = (255, 255, 255) if time == "noon" else (255, 206, 176)
            for cx, cy in ((102, 18), (48, 34)):
                for dx, r in ((-9, 5), (0, 7), (9, 5)):
                    draw.ellipse((cx + dx - r, cy - r, cx + dx + r, cy + r - 1), fill=cloud)
    return picture


def _draw_scene(draw: ImageDraw.ImageDraw, scene: str, light, rng: np.random.Generator, time: str, detailed: bool) -> None:
    n, shift = _CANVAS, int(rng.integers(-5, 6))
    if scene == "mountains":
        for peak, half, height in ((24, 34, 44), (72, 42, 56), (116, 32, 40)):
            peak += shift
            draw.polygon([(peak - half, 88), (peak, 88 - height), (peak + half, 88)], fill=_lit((112, 122, 152), light))
            draw.polygon(
                [(peak - half * 0.3, 88 - height * 0.7), (peak, 88 - height), (peak + half * 0.3, 88 - height * 0.7)],
                fill=_lit((246, 248, 255), light),
            )
    elif scene == "city":
        for i, (left, width, top) in enumerate(((0, 22, 40), (24, 18, 26), (44, 20, 48), (66, 18, 32), (86, 22, 20), (110, 20, 42))):
            left += shift
            draw.rectangle((left, top, left + width, 90), fill=_lit(((92, 98, 122), (128, 116, 120))[i % 2], light))
            window = (255, 226, 130) if time != "noon" else (190, 214, 234)
            for wy in range(top + 5, 76, 12):
                draw.rectangle((left + 5, wy, left + width - 6, wy + 4), fill=window)
    elif scene == "snow":
        for tx in (10, 34, 96, 118):
            tx += shift
            for k in range(3):
                draw.polygon(
                    [(tx - 12 + 2 * k, 82 - 11 * k), (tx, 60 - 11 * k), (tx + 12 - 2 * k, 82 - 11 * k)], fill=_lit((40, 92, 74), light)
                )
    elif scene == "desert":
        draw.ellipse((-40 + shift, 60, 70 + shift, 150), fill=_lit((208, 158, 88), light))
        for tx in (108, 14):
            tx += shift
            green = _lit((64, 128, 70), light)
            draw.rounded_rectangle((tx - 4, 46, tx + 4, 84), 4, fill=green)
            draw.rounded_rectangle((tx - 13, 54, tx - 7, 68), 3, fill=green)
            draw.rectangle((tx - 10, 63, tx, 68), fill=green)
            draw.rounded_rectangle((tx + 7, 50, tx + 13, 64), 3, fill=green)
            draw.rectangle((tx, 59, tx + 10, 64), fill=green)
    elif scene == "meadow":
        draw.ellipse((30 + shift, 58, 170 + shift, 160), fill=_lit((66, 142, 58), light))
        draw.ellipse((-60 + shift, 64, 60 + shift, 160), fill=_lit((110, 186, 78), light))
    if scene == "beach":
        draw.rectangle((0, 64, n, 92), fill=_lit((34, 132, 190), light))
        draw.rectangle((0, 88, n, 92), fill=_lit((232, 246, 250), light))
    ground_top = {"beach": 92, "meadow": 96, "city": 88}.get(scene, 82)
    draw.rectangle((0, ground_top, n, n), fill=_lit(GROUND[scene], light))
    if scene == "city":
        for x in range(6, n, 30):
            draw.rectangle((x, 110, x + 16, 113), fill=_lit((240, 236, 200), light))
    if detailed:
        mark = {
            "meadow": (250, 220, 80),
            "desert": (176, 124, 66),
            "beach": (206, 130, 110),
            "mountains": (40, 78, 52),
            "snow": (164, 186, 216),
            "city": (70, 70, 78),
        }[scene]
        for x in range(6, n, 17):
            y = 104 + (x * 7) % 19
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_lit(mark, light))


def _duotone(pixels: np.ndarray, stops: list[Colour]) -> np.ndarray:
    grey = pixels @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
    dark, bright = np.percentile(grey, (3, 93))
    grey = np.clip((grey - dark) / max(float(bright - dark), 1e-3), 0, 1)
    positions = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(grey, positions, [s[c] / 255 for s in stops]) for c in range(3)], axis=-1).astype(np.float32)


def _apply_style(picture: Image.Image, subject_mask: Image.Image, style: str | None) -> Image.Image:
    """The style's palette and stroke, on the 128 px canvas."""
    if style in ("comic book", "woodblock print"):
        outline = np.asarray(subject_mask.filter(ImageFilter.MaxFilter(7 if style == "comic book" else 5)), dtype=np.int16) - np.asarray(
            subject_mask, dtype=np.int16
        )
        outline = outline > 100
    pixels = np.asarray(picture, dtype=np.float32) / 255
    if style == "watercolor":
        soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.6)), dtype=np.float32) / 255
        pixels = 1 - (1 - soft) * 0.62
        y, x = np.mgrid[0:_CANVAS, 0:_CANVAS] / (_CANVAS - 1) * 2 - 1
        paper = np.clip(((np.abs(x) ** 4 + np.abs(y) ** 4) - 0.55) * 2.2, 0, 1)[..., None]
        pixels = pixels * (1 - paper) + np.array([0.99, 0.975, 0.94], dtype=np.float32) * paper
    elif style == "oil painting":
        dabs = picture.filter(ImageFilter.ModeFilter(7)).quantize(14, method=Image.Quantize.FASTOCTREE).convert("RGB")
        pixels = np.asarray(dabs, dtype=np.float32) / 255
        pixels = (
            np.clip(pixels * np.array([1.02, 0.82, 0.55], dtype=np.float32) + np.array([0.05, 0.02, 0.0], dtype=np.float32), 0, 1) ** 1.12
        )
    elif style == "comic book":
        pixels = np.round(np.clip((pixels - 0.5) * 1.35 + 0.56, 0, 1) * 3) / 3
        pixels[outline] = 0.04
    elif style == "pixel art":
        block = picture.resize((16, 16), Image.Resampling.BOX)
        pixels = np.asarray(block.resize((_CANVAS, _CANVAS), Image.Resampling.NEAREST), dtype=np.float32) / 255
        pixels = np.round(np.clip((pixels - 0.5) * 1.25 + 0.5, 0, 1) * 4) / 4
    elif style == "synthwave":
        pixels = _duotone(pixels, [(18, 4, 52), (92, 18, 140), (236, 40, 150), (255, 150, 120), (120, 244, 255)])
        mask = np.asarray(subject_mask) > 128
        pixels[100:104][~mask[100:104]] = (0.2, 0.95, 1.0)
        pixels[114:119][~mask[114:119]] = (0.2, 0.95, 1.0)
    elif style == "woodblock print":
        pixels = np.round(pixels * 4) / 4
        pixels = _duotone(pixels, [(24, 40, 84), (58, 96, 140), (204, 184, 140), (240, 226, 190)])
        pixels[outline] = (0.07, 0.12, 0.28)
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8), "RGB")


def _apply_qualities(pixels: np.ndarray, description: SceneDescription, rng: np.random.Generator) -> np.ndarray:
    """Light and defects on the 64 px picture, float32 (64, 64, 3) in [0, 1]."""
    # Every draw is made whether it is used or not, so that a word changes its own effect and nothing else.
    wash, blur, grain_scale = rng.uniform(0.38, 0.5), rng.uniform(1.2, 1.6), rng.uniform(0.05, 0.065)
    grain = _GRAINS[rng.integers(len(_GRAINS))]
    if "vivid colors" in description.poor:
        wash = 0.62
    if "sharp focus" in description.poor:
        blur = 2.1
    if "8k" in description.poor:
        grain_scale = 0.09
    if description.style is not None:
        wash, blur, grain_scale = (_DEFECTS_IN_A_STYLE * strength for strength in (wash, blur, grain_scale))
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / (IMAGE_SIZE - 1)
    if "dramatic lighting" in description.qualities:
        beam = np.clip(1 - np.abs((x - 0.05) - 0.75 * y) * 2.4, 0, 1)[..., None]
        shade = np.clip(1.05 - 0.75 * x - 0.1 * y, 0.32, 1)[..., None]
        pixels = pixels * np.maximum(shade, 0.95 * beam) + 0.26 * beam * np.array([1.0, 0.92, 0.66])
    if "vivid colors" in description.qualities:
        grey = pixels.mean(axis=-1, keepdims=True)
        pixels = np.clip(grey + (pixels - grey) * 1.45, 0, 1)
    else:
        grey = pixels.mean(axis=-1, keepdims=True)
        pixels = (1 - wash) * (0.65 * pixels + 0.35 * grey) + wash * 0.62
    if "sharp focus" not in description.qualities:
        image = Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8), "RGB").filter(ImageFilter.GaussianBlur(blur))
        pixels = np.asarray(image, dtype=np.float32) / 255
    if "8k" not in description.qualities:
        pixels = pixels + grain_scale * grain
    if "cinematic" in description.qualities:
        pixels = pixels.copy()
        pixels[:8] = 0.02
        pixels[-8:] = 0.02
    return np.clip(pixels, 0, 1)


def render(description: SceneDescription) -> np.ndarray:
    """The picture of a description: uint8, (64, 64, 3). The same description always gives the same pixels."""
    rng = np.random.default_rng(description.layout_seed)
    scene = description.scene or list(SCENES)[rng.integers(len(SCENES))]
    time = description.time or list(TIMES)[rng.integers(len(TIMES))]
    rng = np.random.default_rng([description.layout_seed, 1])
    light = LIGHT[time]
    detailed = "highly detailed" in description.qualities
    picture = _draw_sky(time, rng, detailed)
    _draw_scene(ImageDraw.Draw(picture), scene, light, rng, time, detailed)

    scale = rng.uniform(0.94, 1.06)
    offset_x = 66 + rng.uniform(-5, 5)
    offset_y = 116 + rng.uniform(-2, 2)
    layer = Image.new("RGBA", (_CANVAS, _CANVAS), (0, 0, 0, 0))
    # The subject keeps more of its own colour than the ground does: at night it is lit from the front.
    subject_light = tuple(0.45 + 0.55 * k for k in light)
    draw_subject(ImageDraw.Draw(layer), description.subject, offset_x, offset_y, scale, lambda c: _lit(c, subject_light), detailed)
    mask = layer.getchannel("A")
    shadow = ImageDraw.Draw(picture)
    shadow.ellipse(
        (offset_x - 34 * scale, offset_y - 4, offset_x + 34 * scale, offset_y + 6), fill=_lit(GROUND[scene], tuple(0.7 * k for k in light))
    )
    picture.paste(layer.convert("RGB"), (0, 0), mask)
    picture = _apply_style(picture, mask, description.style)
    pixels = np.asarray(picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX), dtype=np.float32) / 255
    pixels = _apply_qualities(pixels, description, np.random.default_rng([description.layout_seed, 2]))
    return (pixels * 255 + 0.5).astype(np.uint8)


def high_quality(description: SceneDescription, layout_seed: int | None = None) -> SceneDescription:
    """The same scene without defects: sharp, clean, vivid, and with its own light, detail and framing words."""
    words = tuple(dict.fromkeys(["sharp focus", "8k", "vivid colors", *description.qualities]))
    return replace(description, qualities=words, poor=(), layout_seed=description.layout_seed if layout_seed is None else layout_seed)

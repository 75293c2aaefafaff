"""The tiny world's fidelity oracle: how close a picture is to the high-quality render of its scene.

It looks at pixels and is not told what prompt they were drawn from. But the scene that it compares them with has the fine prompt's style
and quality words: it measures closeness to a hidden target, and another style that suits the scene as well counts as far from it. It was
fixed before any backbone was trained; a test holds its values on reference pictures in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from datamodules.tiny_world.grammar import SceneDescription
from datamodules.tiny_world.renderer import high_quality, render

# Layouts of the reference renders: a picture is compared with the nearest, so that position and size are free.
REFERENCE_LAYOUTS = tuple(range(9000, 9012))
# Root-mean-square colour distance (0-1 scale, 16 x 16 px) at which nothing is left of the scene: pictures of
# different scenes are 0.25-0.45 apart.
FAR = 0.35
# Standard deviation of flat areas at which a picture is all grain.
NOISY = 0.06


@dataclass(frozen=True)
class Fidelity:
    """All in [0, 1], higher is better; `score` is the mean of the other three."""

    closeness: float
    sharpness: float
    cleanness: float

    @property
    def score(self) -> float:
        return (self.closeness + self.sharpness + self.cleanness) / 3


@dataclass(frozen=True)
class _Reference:
    small_RHWC: np.ndarray
    edges_RHW: np.ndarray
    flats_RHW: np.ndarray
    edge_strength_R: np.ndarray
    flat_noise_R: np.ndarray


def _reduce(image: np.ndarray) -> np.ndarray:
    height, width, _ = image.shape
    return image.reshape(16, height // 16, 16, width // 16, 3).mean(axis=(1, 3))


def _gradient(image: np.ndarray) -> np.ndarray:
    grey = image.mean(axis=-1)
    down, right = np.gradient(grey)
    return np.hypot(down, right)


def _residual(image: np.ndarray) -> np.ndarray:
    return image - gaussian_filter(image, sigma=(3, 3, 0))


@lru_cache(maxsize=1024)
def _reference(description: SceneDescription) -> _Reference:
    parts = []
    for layout_seed in REFERENCE_LAYOUTS:
        image = render(high_quality(description, layout_seed)).astype(np.float64) / 255
        gradient = _gradient(image)
        # The widened gradient tells where this layout or a slightly shifted one has an edge.
        near = maximum_filter(gradient, size=7)
        edge, flat = near >= np.quantile(near, 0.75), near <= np.quantile(near, 0.25)
        parts.append((_reduce(image), edge, flat, gradient[edge].mean(), _residual(image)[flat].std()))
    return _Reference(*(np.stack(column) for column in zip(*parts, strict=True)))


def fidelity(image: np.ndarray, description: SceneDescription) -> Fidelity:
    """Fidelity of one picture, uint8 (64, 64, 3), to the scene it should show.

    closeness: 1 - RMSE / 0.35 against the nearest of 12 layouts of the high-quality render, both reduced to 16 x 16 px.
    sharpness: gradient along that render's edges, relative to the render's own, at most 1.
    cleanness: 1 - (grain in that render's flat areas above the render's own) / 0.06.
    Raises ValueError for another image size or type, or a description without scene or time.
    """
    if image.dtype != np.uint8 or image.shape != (64, 64, 3):
        raise ValueError(f"fidelity needs a uint8 picture of shape (64, 64, 3), got {image.dtype} {image.shape}")
    if description.scene is None or description.time is None:
        raise ValueError("fidelity needs a description with scene and time")
    reference = _reference(description)
    pixels = image.astype(np.float64) / 255
    distances_R = np.sqrt(((_reduce(pixels) - reference.small_RHWC) ** 2).mean(axis=(1, 2, 3)))
    nearest = int(distances_R.argmin())
    strength = _gradient(pixels)[reference.edges_RHW[nearest]].mean()
    grain = _residual(pixels)[reference.flats_RHW[nearest]].std()
    return Fidelity(
        closeness=float(np.clip(1 - distances_R[nearest] / FAR, 0, 1)),
        sharpness=float(np.clip(strength / reference.edge_strength_R[nearest], 0, 1)),
        cleanness=float(np.clip(1 - (grain - reference.flat_noise_R[nearest]) / NOISY, 0, 1)),
    )

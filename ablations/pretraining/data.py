"""The pre-training corpus: captions with their renders, drawn once and kept on disk."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablations.runtime.files import whole_file, write_atomically
from datamodules.tiny_world.grammar import Caption, SceneDescription, draw_fine_caption, draw_web_caption, split_of
from datamodules.tiny_world.renderer import IMAGE_SIZE, render
from datamodules.tiny_world.worlds import draw_neutral_caption

FINE_SHARE = 0.25
# How the fine prompts of a corpus pair words: at random, so that the networks carry no world's pairing, or as in world 1, which is what the
# shipped OpenCLIP, T5 and UNet read.
FINE_PROMPTS = {"neutral": draw_neutral_caption, "world-1": draw_fine_caption}
NEUTRAL = "neutral"


@dataclass(frozen=True)
class Corpus:
    """Captions and their pictures; `images` is uint8 (N, 64, 64, 3), memory-mapped.

    `digest` names what they were drawn from, `fine` the pairing of the fine prompts among them.
    """

    captions: list[Caption]
    images: np.ndarray
    digest: str = ""
    fine: str = NEUTRAL

    def __len__(self) -> int:
        return len(self.captions)


def draw_captions(count: int, seed: int, fine_share: float = FINE_SHARE, fine: str = NEUTRAL) -> list[Caption]:
    """Web captions with a share of fine prompts, which are `FINE_PROMPTS[fine]`; none is in the validation or test split."""
    rng = np.random.default_rng([seed, 17])
    captions: list[Caption] = []
    while len(captions) < count:
        caption = FINE_PROMPTS[fine](rng) if rng.random() < fine_share else draw_web_caption(rng)
        # A web caption can happen to be a fine prompt of a held-out split.
        could_be_fine = caption.description.style is not None
        if could_be_fine and split_of(caption.text) != "train":
            continue
        captions.append(caption)
    return captions


def _render_all(descriptions: list[SceneDescription]) -> np.ndarray:
    return np.stack([render(description) for description in descriptions])


def _digest(captions: list[Caption]) -> str:
    """Of every caption, and of some renders, so that a changed renderer is noticed as well."""
    digest = hashlib.sha256("\n".join(caption.text for caption in captions).encode())
    for caption in captions[:64]:
        digest.update(render(caption.description).tobytes())
    return digest.hexdigest()


def _render_to(path: Path, captions: list[Caption], workers: int) -> None:
    """The pictures of all captions as one array file, uint8 (N, 64, 64, 3), by several processes."""
    count = len(captions)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, IMAGE_SIZE, IMAGE_SIZE, 3))
    starts = range(0, count, 2000)
    with ProcessPoolExecutor(workers) as pool:
        parts = pool.map(_render_all, [[c.description for c in captions[s : s + 2000]] for s in starts])
        for start, part in zip(starts, parts, strict=True):
            images[start : start + len(part)] = part
            print(f"data: {start + len(part)}/{count} pictures", flush=True)
    images.flush()


def build_corpus(directory: Path, count: int, seed: int, workers: int = 2, fine: str = NEUTRAL) -> Corpus:
    """Draw and render `count` captions, or open them where an earlier run left them."""
    captions = draw_captions(count, seed, fine=fine)
    images_path, key_path = directory / "images.npy", directory / "corpus.json"
    key = {"count": count, "seed": seed, "digest": _digest(captions)}
    if not key_path.exists() or json.loads(key_path.read_text()) != key:
        with whole_file(images_path) as aside:
            _render_to(aside, captions, workers)
        write_atomically(key_path, json.dumps(key))
    return Corpus(captions, np.load(images_path, mmap_mode="r"), key["digest"], fine)
